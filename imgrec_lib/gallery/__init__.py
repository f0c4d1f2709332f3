"""Rows of items as pictures: HTML, a live widget, a contact sheet."""

from imgrec_lib.extras import require

require("report")

from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.rows import Cell, Row
from imgrec_lib.gallery.views import neighbour_gallery, recommendation_gallery, side_by_side
from imgrec_lib.options import check_calls

__all__ = ["Cell", "Gallery", "Row", "neighbour_gallery", "recommendation_gallery", "side_by_side"]

check_calls(__name__)
