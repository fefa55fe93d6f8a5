//! HTTP/1.1 answers, out of bytes that come in pieces of any size: just enough for servers that are known.

use crate::Failure;

/// Longest head of an answer, in bytes: whoever sends more is not one of ours.
const HEAD_MAX: usize = 16_384;

/// A part of the answers on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Status and header fields.
    Head(Head<'a>),
    /// Some of the body; after a 101 what follows, for ever.
    Body(&'a [u8]),
    /// The body has ended.
    End,
}

/// Status and header fields of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) status: u16,
    text: &'a str,
}

impl<'a> Head<'a> {
    fn parse(text: &'a str) -> Result<Self, Failure> {
        let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        Ok(Self { status: status.ok_or_else(|| format!("not an answer: {text:?}"))?, text })
    }

    /// The value of a field. Its name is compared without regard to case.
    pub(crate) fn field(&self, name: &str) -> Option<&'a str> {
        let mut fields = self.text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Reads the answers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    state: State,
    /// A head, or a line of a chunked body, that is not whole yet.
    rest: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Head,
    /// So many bytes of a body with a length are still to come.
    Length(usize),
    /// A line with the length of a chunk.
    ChunkLength,
    /// So many bytes of a chunk are still to come.
    Chunk(usize),
    /// The end of line after a chunk.
    ChunkEnd,
    /// The end of line after the last one. Trailers are not expected.
    LastChunkEnd,
    /// Until the connection ends.
    Endless,
}

impl Answers {
    /// Takes what has come, and hands on its parts.
    pub(crate) fn take(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Part<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            match self.state {
                State::Head => {
                    let Some(head) = line(&mut self.rest, &mut bytes, b"\r\n\r\n")? else { return Ok(()) };
                    let head = Head::parse(std::str::from_utf8(head)?)?;
                    let length = head.field("content-length").map(str::parse).transpose()?;
                    let is_chunked = head.field("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked"));
                    each(Part::Head(head))?;
                    self.state = match (head.status, length) {
                        (101, _) => State::Endless,
                        (204 | 304, _) => State::Length(0),
                        _ if is_chunked => State::ChunkLength,
                        (_, Some(length)) => State::Length(length),
                        _ => State::Endless,
                    };
                    self.rest.clear();
                    if matches!(self.state, State::Length(0)) {
                        self.state = State::Head;
                        each(Part::End)?;
                    }
                }
                State::Length(left) | State::Chunk(left) => {
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    let (piece, after) = bytes.split_at(left.min(bytes.len()));
                    bytes = after;
                    each(Part::Body(piece))?;
                    let (is_chunk, left) = (matches!(self.state, State::Chunk(_)), left - piece.len());
                    self.state = match (is_chunk, left) {
                        (true, 0) => State::ChunkEnd,
                        (true, left) => State::Chunk(left),
                        (false, 0) => State::Head,
                        (false, left) => State::Length(left),
                    };
                    if matches!(self.state, State::Head) {
                        each(Part::End)?;
                    }
                }
                State::ChunkLength => {
                    let Some(text) = line(&mut self.rest, &mut bytes, b"\r\n")? else { return Ok(()) };
                    let text = std::str::from_utf8(text)?;
                    let digits = text.split(';').next().unwrap_or_default().trim();
                    let length = usize::from_str_radix(digits, 16)?;
                    self.state = if length == 0 { State::LastChunkEnd } else { State::Chunk(length) };
                    self.rest.clear();
                }
                State::ChunkEnd | State::LastChunkEnd => {
                    if line(&mut self.rest, &mut bytes, b"\r\n")?.is_none() {
                        return Ok(());
                    }
                    self.rest.clear();
                    if matches!(self.state, State::ChunkEnd) {
                        self.state = State::ChunkLength;
                    } else {
                        self.state = State::Head;
                        each(Part::End)?;
                    }
                }
                State::Endless => {
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    return each(Part::Body(bytes));
                }
            }
        }
    }
}

/// The bytes before `end`, without it: out of `bytes`, when they are whole there, or out of `rest`, which keeps what came before. The caller clears it.
fn line<'r, 'b: 'r>(rest: &'r mut Vec<u8>, bytes: &mut &'b [u8], end: &[u8]) -> Result<Option<&'r [u8]>, Failure> {
    let find = |bytes: &[u8]| bytes.windows(end.len()).position(|window| window == end);
    if rest.is_empty()
        && let Some(at) = find(bytes)
    {
        let found = &bytes[..at];
        *bytes = &bytes[at + end.len()..];
        return Ok(Some(found));
    }
    let kept = rest.len();
    rest.extend_from_slice(bytes);
    let Some(at) = find(rest) else {
        *bytes = &[];
        return if rest.len() > HEAD_MAX { Err("a head without an end".into()) } else { Ok(None) };
    };
    *bytes = &bytes[at + end.len() - kept..];
    Ok(Some(&rest[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], piece: usize) -> String {
        let mut answers = Answers::default();
        let mut said = String::new();
        for piece in bytes.chunks(piece) {
            answers
                .take(piece, |part| {
                    match part {
                        Part::Head(head) => {
                            said += &format!("<{} {}>", head.status, head.field("X").unwrap_or_default());
                        }
                        Part::Body(body) => said += std::str::from_utf8(body)?,
                        Part::End => said += ".",
                    }
                    Ok(())
                })
                .unwrap();
        }
        said
    }

    #[test]
    fn answers_are_read_however_they_are_cut() {
        let all = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx:  1 \r\n\r\nhello\
            HTTP/1.1 204 No Content\r\n\r\n\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\
            HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nHTTP/1.1 no more";
        for piece in 1..all.len() {
            assert_eq!(read(all, piece), "<200 1>hello.<204 >.<200 >abc0123456789.<200 >.<101 >HTTP/1.1 no more");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert!(Answers::default().take(b"SSH-2.0\r\n\r\n", |_| Ok(())).is_err());
        assert!(Answers::default().take(&[b'x'; HEAD_MAX + 1], |_| Ok(())).is_err());
    }
}
