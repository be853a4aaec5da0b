"""Changes from elsewhere: locks and change sets at a line's home, offers at the node where an edit was made."""
