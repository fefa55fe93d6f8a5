//! SPEC section 7.4: a GET that is held, and POSTs.

use throughline_protocol::Decoder;

use crate::http::{Http, Posts, link_headers};
use crate::idle::{Failure, Holding, answer, first_ping, welcome};
use crate::tcp::Server;

pub(crate) async fn open(server: &Server, number: usize) -> Result<Holding, Failure> {
    let mut http = Http::connect(server, number).await?;
    let head = http.ask(&format!("GET {}/poll", server.base), "throughline-version: 1\r\n", b"").await?;
    if head.status != 200 {
        return Err(format!("the server answered {}", head.status).into());
    }
    let mut decoder = Decoder::new();
    decoder.push(http.body(&head).await?);
    let names = link_headers(&welcome(&mut decoder)?.ok_or("no WELCOME")?);
    let mut posts = Posts::new(server, number, names);
    posts.send(&first_ping()).await?;
    let again = format!("GET {}/poll", server.base);
    Ok(Box::pin(async move {
        loop {
            let head = http.ask(&again, posts.names(), b"").await?;
            let packet = http.body(&head).await?;
            match head.status {
                200 => {
                    let mut decoder = Decoder::new();
                    decoder.push(packet);
                    let said = answer(&mut decoder)?;
                    if !said.is_empty() {
                        posts.send(&said).await?;
                    }
                }
                204 => {}
                status => return Err(format!("a poll was answered {status}").into()),
            }
        }
    }))
}
