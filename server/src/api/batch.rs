//! Several things at once, and each at most once.

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;

use super::commands::{Batch, IdempotencyKey, One};
use super::idempotency::{Mismatch, fingerprint};
use super::problem::Problem;
use super::run::Command;
use super::{Api, Caller};

/// Does what is asked for, unless it was done with the same key, and answers with JSON. With a key it is done to its end, whether anybody waits for it or not.
pub(super) async fn perform<C: Command>(
    api: &Api,
    caller: Caller,
    header: Option<IdempotencyKey>,
    mut command: C,
) -> Result<Bytes, Problem> {
    let key = match command.key() {
        None => None,
        Some(stated) => match (header, stated.take()) {
            (Some(header), Some(stated)) if header.0 != stated.0 => {
                let reason = "the header Idempotency-Key says another one";
                return Err(Problem::invalid("idempotency_key", reason));
            }
            (header, stated) => header.or(stated),
        },
    };
    let Some(IdempotencyKey(key)) = key else { return answer::<C>(command.run(&api.0).await?) };
    let name = (caller.0, key);
    let print = fingerprint(C::NAME, &json(&command)?);
    let slot = api.0.remembered.slot(name.clone(), print).map_err(mismatch)?;
    let api = api.clone();
    let done = tokio::spawn(async move {
        let run = async || answer::<C>(command.run(&api.0).await?);
        let done = slot.get_or_try_init(run).await.cloned();
        api.0.remembered.filled(&name, &slot);
        done
    });
    done.await.unwrap_or_else(|_| Err(Problem::failed()))
}

/// Does one after the other. With a key, each command that has none of its own gets one that is made of it.
pub(super) async fn perform_all(
    api: &Api,
    caller: Caller,
    header: Option<IdempotencyKey>,
    batch: Batch,
) -> Result<Bytes, Problem> {
    // One that cannot be meant is a mistake of the whole, as one that cannot be read is: nothing is done.
    for (index, command) in batch.commands.iter().enumerate() {
        command.check().map_err(|problem| problem.below(&format!("commands[{index}].{}", command.name())))?;
    }
    if let Some(IdempotencyKey(key)) = &header {
        // Two batches with the same key are the same, or nothing is done.
        let name = (caller.0, format!("{key}/batch"));
        api.0.remembered.slot(name, fingerprint("batch", &json(&batch)?)).map_err(mismatch)?;
    }
    let mut results = BytesMut::from("{\"results\":[");
    for (index, command) in batch.commands.into_iter().enumerate() {
        let key = header.as_ref().map(|IdempotencyKey(key)| IdempotencyKey(format!("{key}/{index}")));
        let done = perform_one(api, caller, key, command).await;
        if index > 0 {
            results.put_u8(b',');
        }
        match done {
            Ok(answer) => {
                results.put_slice(b"{\"status\":200,\"answer\":");
                results.put_slice(&answer);
            }
            Err(problem) => {
                results.put_slice(format!("{{\"status\":{},\"problem\":", problem.status).as_bytes());
                results.put_slice(&json(&problem)?);
            }
        }
        results.put_u8(b'}');
    }
    results.put_slice(b"]}");
    Ok(results.freeze())
}

/// Does this with the command that one is.
macro_rules! each {
    ($one:expr, $command:ident => $what:expr) => {
        match $one {
            One::Publish($command) => $what,
            One::Broadcast($command) => $what,
            One::Set($command) => $what,
            One::Remove($command) => $what,
            One::History($command) => $what,
            One::Values($command) => $what,
            One::Presence($command) => $what,
            One::Disconnect($command) => $what,
            One::Subscribe($command) => $what,
            One::Unsubscribe($command) => $what,
            One::Channels($command) => $what,
            One::Info($command) => $what,
        }
    };
}

impl One {
    fn check(&self) -> Result<(), Problem> {
        each!(self, command => command.check())
    }

    fn name(&self) -> &'static str {
        fn of<C: Command>(_: &C) -> &'static str {
            C::NAME
        }
        each!(self, command => of(command))
    }
}

async fn perform_one(api: &Api, caller: Caller, key: Option<IdempotencyKey>, one: One) -> Result<Bytes, Problem> {
    each!(one, command => own_key_first(api, caller, key, command).await)
}

async fn own_key_first<C: Command>(
    api: &Api,
    caller: Caller,
    key: Option<IdempotencyKey>,
    mut command: C,
) -> Result<Bytes, Problem> {
    let has_own = command.key().is_some_and(|own| own.is_some());
    perform(api, caller, key.filter(|_| !has_own), command).await
}

fn mismatch(Mismatch: Mismatch) -> Problem {
    let reason = "this idempotency key was used with something else";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", reason)
}

fn answer<C: Command>(answer: C::Answer) -> Result<Bytes, Problem> {
    json(&answer).map(Bytes::from)
}

/// What is made of text and numbers can always be written as JSON.
fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|_| Problem::failed())
}
