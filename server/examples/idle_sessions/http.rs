//! As much of HTTP/1.1 as holding sessions takes: a client's library has buffers that thousands of idle connections cannot afford.

use bytes::{Buf, Bytes, BytesMut};
use throughline_protocol::Welcome;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::idle::Failure;
use crate::tcp::{Io, Server};

/// Longest head, line of a chunk or body that is read, in bytes. All that the server says here is far shorter.
const MAX_BUFFERED: usize = 64 * 1_024;

/// One connection, with one request at a time.
pub(crate) struct Http {
    io: Box<dyn Io>,
    input: BytesMut,
}

/// What an answer says of its body.
pub(crate) struct Head {
    pub(crate) status: u16,
    length: Option<usize>,
    chunked: bool,
}

impl Http {
    pub(crate) async fn connect(server: &Server, session: usize) -> Result<Self, Failure> {
        Ok(Self { io: server.connect(session).await?, input: BytesMut::new() })
    }

    /// Sends a request, and reads the head of the answer. `headers` are whole lines.
    pub(crate) async fn ask(&mut self, line: &str, headers: &str, body: &[u8]) -> Result<Head, Failure> {
        let len = body.len();
        let mut request =
            format!("{line} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {len}\r\n\r\n").into_bytes();
        request.extend_from_slice(body);
        self.io.write_all(&request).await?;
        let end = self.find(b"\r\n\r\n").await?;
        let head = self.input.split_to(end + 4);
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        let mut lines = std::str::from_utf8(&head)?.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or("no status")?.parse()?;
        let mut read = Head { status, length: None, chunked: false };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => read.length = Some(value.trim().parse()?),
                "transfer-encoding" => read.chunked = value.trim() == "chunked",
                _ => {}
            }
        }
        Ok(read)
    }

    /// The whole body of an answer.
    pub(crate) async fn body(&mut self, head: &Head) -> Result<Bytes, Failure> {
        let mut body = BytesMut::new();
        if let Some(length) = head.length {
            self.fill(length).await?;
            return Ok(self.input.split_to(length).freeze());
        }
        if head.chunked {
            while let Some(piece) = self.next(head).await? {
                body.extend_from_slice(&piece);
            }
        }
        Ok(body.freeze())
    }

    /// The next piece of a body without an announced end; `None` at its end.
    pub(crate) async fn next(&mut self, head: &Head) -> Result<Option<Bytes>, Failure> {
        if !head.chunked {
            if self.input.is_empty() && !self.read().await? {
                return Ok(None);
            }
            return Ok(Some(std::mem::take(&mut self.input).freeze()));
        }
        let end = self.find(b"\r\n").await?;
        let length = usize::from_str_radix(std::str::from_utf8(&self.input[..end])?, 16)?;
        self.input.advance(end + 2);
        self.fill(length + 2).await?;
        let piece = self.input.split_to(length).freeze();
        self.input.advance(2);
        if self.input.is_empty() {
            self.input = BytesMut::new(); // an idle session holds no buffer
        }
        Ok((length > 0).then_some(piece))
    }

    async fn find(&mut self, what: &[u8]) -> Result<usize, Failure> {
        loop {
            if let Some(at) = self.input.windows(what.len()).position(|window| window == what) {
                return Ok(at);
            }
            self.fill(self.input.len() + 1).await?;
        }
    }

    async fn fill(&mut self, len: usize) -> Result<(), Failure> {
        while self.input.len() < len {
            if self.input.len() > MAX_BUFFERED || !self.read().await? {
                return Err("the server ended a connection".into());
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<bool, Failure> {
        // Read beside the buffer: a connection that waits has none.
        let mut bytes = [0; 512];
        let len = self.io.read(&mut bytes).await?;
        self.input.extend_from_slice(&bytes[..len]);
        Ok(len > 0)
    }
}

/// The headers of a further poll, or of a POST.
pub(crate) fn link_headers(welcome: &Welcome) -> String {
    let Welcome { session, key, link, .. } = welcome;
    let key = key.expose();
    format!("throughline-session: {session}\r\nthroughline-key: {key}\r\nthroughline-link: {link}\r\n")
}

/// The POSTs of one session. They have a connection, which is kept for the next one, as browsers do.
pub(crate) struct Posts {
    server: Server,
    session: usize,
    names: String,
    connection: Option<Http>,
}

impl Posts {
    pub(crate) fn new(server: &Server, session: usize, names: String) -> Self {
        Self { server: server.clone(), session, names, connection: None }
    }

    /// What the server knows the link by.
    pub(crate) fn names(&self) -> &str {
        &self.names
    }

    /// Sends a packet. On a connection that the server has closed meanwhile nothing comes back; then it is sent once more, on another.
    pub(crate) async fn send(&mut self, packet: &[u8]) -> Result<(), Failure> {
        let line = format!("POST {}/send", self.server.base);
        let kept = self.connection.take();
        let is_kept = kept.is_some();
        let mut http = match kept {
            Some(http) => http,
            None => Http::connect(&self.server, self.session).await?,
        };
        let status = match http.ask(&line, &self.names, packet).await {
            Ok(head) => head.status,
            Err(_) if is_kept => {
                http = Http::connect(&self.server, self.session).await?;
                http.ask(&line, &self.names, packet).await?.status
            }
            Err(error) => return Err(error),
        };
        self.connection = Some(http);
        if status == 204 { Ok(()) } else { Err(format!("a POST was answered {status}").into()) }
    }
}
