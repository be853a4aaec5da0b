"""What a sync run does: two trees reconciled by what both had after the last one. It asks no home and no clock."""
