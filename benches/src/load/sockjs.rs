//! SockJS over WebSocket.
