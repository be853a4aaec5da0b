"""How nodes talk: messages, their client and server, connections, and the keys that both trust."""
