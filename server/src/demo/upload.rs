//! Takes what a page uploads on a stream of its session, and tells what it got.

use std::io;

use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Uploads of one session at once. Each costs a task, and the stream's window.
pub(super) const UPLOADS_MAX: usize = 4;
/// Longest upload, bytes: ample for a demonstration, and nothing is kept of it but a hash.
const BYTES_MAX: u64 = 64 << 20;
/// How often the page is told how far it is, bytes: its bar moves smoothly with an 8 MB upload, and the answers are few.
const REPORT_EVERY: u64 = 64 << 10;
/// Read at once, bytes.
const BUFFER_BYTES: usize = 16 << 10;

/// What the page gets to read on the same stream: one line of JSON each.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Report {
    Progress { received: u64 },
    Done { received: u64, sha256: String },
    Failed { error: String },
}

/// Reads `stream` to its end. An upload that is too long is told so, and read no further.
///
/// # Errors
/// Those of the stream: the page has given it up, or the session has ended.
pub(super) async fn receive(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hash = Sha256::new();
    let mut received = 0;
    let mut reported = 0;
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        received += count as u64;
        if received > BYTES_MAX {
            tell(&mut stream, &Report::Failed { error: format!("an upload has at most {BYTES_MAX} bytes") }).await?;
            return stream.shutdown().await;
        }
        hash.update(&buffer[..count]);
        if received - reported >= REPORT_EVERY {
            reported = received;
            tell(&mut stream, &Report::Progress { received }).await?;
        }
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    tell(&mut stream, &Report::Done { received, sha256 }).await?;
    stream.shutdown().await
}

async fn tell(stream: &mut (impl AsyncWrite + Unpin), report: &Report) -> io::Result<()> {
    // Numbers and strings: serde_json has nothing to refuse.
    let mut line = serde_json::to_string(report).unwrap_or_default();
    line.push('\n');
    stream.write_all(line.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::io::{duplex, split};

    use super::*;

    async fn upload(bytes: u64) -> Vec<Value> {
        let (page, server) = duplex(1 << 16);
        let task = tokio::spawn(receive(server));
        let (mut reader, mut writer) = split(page);
        let write = async {
            let mut left = bytes;
            while left > 0 {
                let piece = left.min(1 << 20);
                if writer.write_all(&vec![b'a'; piece as usize]).await.is_err() {
                    break;
                }
                left -= piece;
            }
            let _ = writer.shutdown().await;
        };
        let mut told = String::new();
        let (_, read) = tokio::join!(write, reader.read_to_string(&mut told));
        read.expect("an answer in UTF-8");
        task.await.expect("no panic").expect("the stream lives");
        told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[tokio::test]
    async fn the_end_is_answered_with_the_hash_of_everything() {
        let told = upload(1_000_000).await;
        let last = told.last().expect("an answer");
        assert_eq!(last["received"], 1_000_000);
        // The second test vector of FIPS 180-2 for a long message: one million "a".
        assert_eq!(last["sha256"], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
        assert!(told.len() > 10, "progress on the way: {}", told.len());
        assert_eq!(upload(0).await[0]["received"], 0);
    }

    #[tokio::test]
    async fn what_is_too_long_is_refused_on_the_way() {
        let told = upload(BYTES_MAX + 1).await;
        assert!(told.last().is_some_and(|last| last["error"].is_string()));
    }
}
