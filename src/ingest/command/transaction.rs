//! MULTI, EXEC, DISCARD.

use super::{Call, Outcome};
use crate::{
    ingest::{
        producer::{Producer, Transaction},
        refusal::Refusal,
    },
    limits::{INGEST_TRANSACTION_BYTES_MAX, INGEST_TRANSACTION_COMMAND_BYTES},
    resp::{Command, Reply},
};

pub(super) fn multi(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    if call.producer.transaction.is_some() {
        return Err(Refusal::NestedMulti);
    }
    call.producer.transaction = Some(Transaction::default());
    Ok(Reply::OK.into())
}

/// The reply is the head of an array; the commands, which the reader takes before anything else that
/// it has received, bring its elements.
pub(super) fn exec(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let transaction = call.producer.transaction.take().ok_or(Refusal::ExecWithoutMulti)?;
    if transaction.is_discarded {
        return Err(Refusal::TransactionDiscarded);
    }
    let length = transaction.commands.len();
    call.producer.executing = transaction.commands;
    Ok(Reply::ArrayHead(length).into())
}

pub(super) fn discard(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    call.producer.transaction.take().ok_or(Refusal::DiscardWithoutMulti)?;
    Ok(Reply::OK.into())
}

/// Queues a command that stands between MULTI and EXEC.
pub(super) fn queue(producer: &mut Producer, command: Command) -> Result<Reply, Refusal> {
    let transaction = producer.transaction.as_mut().expect("the caller has looked");
    transaction.bytes += command.bytes_len() + INGEST_TRANSACTION_COMMAND_BYTES;
    if transaction.bytes > INGEST_TRANSACTION_BYTES_MAX {
        transaction.is_discarded = true;
        transaction.commands.clear();
        return Err(Refusal::TransactionTooBig);
    }
    // What will not be executed need not be kept.
    if !transaction.is_discarded {
        transaction.commands.push_back(command);
    }
    Ok(Reply::Simple("QUEUED"))
}
