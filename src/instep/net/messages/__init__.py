"""The messages between peers, as msgpack, with its errors and checked parts."""
