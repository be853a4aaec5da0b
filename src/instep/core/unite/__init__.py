"""The `UniteMachine` of a fileset of several lines: brings one tree to the union of their heads. It signs nothing."""
