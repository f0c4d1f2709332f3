"""What several models are built of. The models themselves, one a file, stand in the folder above."""
