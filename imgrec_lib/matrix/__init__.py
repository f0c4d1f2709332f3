"""A matrix of runs: datasets x models x profiles x seeds, and searches, each run an executed notebook.

`definition` reads the file, `tasks` says which notebooks that makes and where each stands, `driver` executes what is
missing, and `view` shows how far it is, from the records on disk alone.
"""

from imgrec_lib.matrix.definition import Data, Matrix, read_matrix, with_roots
from imgrec_lib.matrix.driver import run_matrix
from imgrec_lib.matrix.tasks import Task, plan
from imgrec_lib.matrix.view import Row, rows, watch_matrix
from imgrec_lib.options import check_calls

__all__ = ["Data", "Matrix", "Row", "Task", "plan", "read_matrix", "rows", "run_matrix", "watch_matrix", "with_roots"]

check_calls(__name__)
