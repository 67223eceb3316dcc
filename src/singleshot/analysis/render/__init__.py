"""What can be made of a section: one file for each form."""
