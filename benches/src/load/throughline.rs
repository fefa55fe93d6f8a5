//! Throughline sessions over WebSocket, SSE and long-polling: the client's role of the protocol crate's machine.
