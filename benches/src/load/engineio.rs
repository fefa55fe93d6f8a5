//! Socket.IO 4 over Engine.IO 4 over WebSocket.
