//! WebTransport, plain and as the carrier of Throughline sessions.
