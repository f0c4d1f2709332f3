"""Rows of items as pictures: HTML, a live widget, a contact sheet."""

from imgrec_lib.gallery.gallery import Cell, Gallery, Row
from imgrec_lib.gallery.views import neighbour_gallery, recommendation_gallery, side_by_side

__all__ = ["Cell", "Gallery", "Row", "neighbour_gallery", "recommendation_gallery", "side_by_side"]
