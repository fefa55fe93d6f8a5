//! Plain WebSocket (RFC 6455).
