"""Readers of data sets, one a file (the wardrobe, which is drawn, a folder); `imgrec_lib.data` lists them."""
