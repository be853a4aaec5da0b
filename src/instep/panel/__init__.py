"""The panel's listener: REST under ``/api/v1``, sign-in, pages. It adapts commands to HTTP, and acts by them alone."""
