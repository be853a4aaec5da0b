"""Questions between peers over a stream: put to a partner, answered here, or passed on by a hub."""
