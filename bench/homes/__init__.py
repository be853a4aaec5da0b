"""Figures of filesets that many homes write: what no peer can be asked for. Rows beside peers are in ``bench.rows``."""
