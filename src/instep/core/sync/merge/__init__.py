"""The bytes of one file that both sides changed in different places, merged by its format where that is clean."""
