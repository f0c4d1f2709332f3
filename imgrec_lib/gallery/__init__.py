"""Rows of items as pictures: HTML, a live widget, a contact sheet."""

from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.live import LiveGallery
from imgrec_lib.gallery.rows import Cell, Row
from imgrec_lib.gallery.views import neighbour_gallery, recommendation_gallery, side_by_side

__all__ = ["Cell", "Gallery", "LiveGallery", "Row", "neighbour_gallery", "recommendation_gallery", "side_by_side"]
