"""What a run says: tables, plots and one self-contained page."""
