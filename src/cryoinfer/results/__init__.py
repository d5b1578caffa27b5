"""What a finished run consists of: its records, and the files that hold them."""
