"""The root of a fileset and its control folder, held by descriptors, and the records that lie there."""
