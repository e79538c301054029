//! A producer ends its transaction: 37. An operator has one asked after again: 323.
//!
//! Java: `EndTransactionProcessor`, `AdminBrokerProcessor.resumeCheckHalfMessage`.

use std::sync::Arc;

use ferromq_protocol::header::{EndTransactionRequest, ResumeCheckHalfMessageRequest};
use ferromq_protocol::message::properties::names;
use ferromq_protocol::message::{OffsetMessageId, Record, SysFlag};
use ferromq_protocol::topics::{TRANSACTION_CHECK_MAX_TIME_TOPIC, TRANSACTION_HALF_TOPIC};
use ferromq_protocol::{PhysicalOffset, QueueOffset, Reply, ResponseCode};
use ferromq_store::{Effort, Round, Store};

use crate::acknowledge::{Acknowledgement, BrokenPromise, Promise};
use crate::clock::now_ms;
use crate::handlers::send::append_refused;
use crate::live_config::LiveConfig;
use crate::master_duties::MasterDuties;
use crate::refusal::Refusal;
use crate::transactions::{EndError, Transactions};

/// The parts that ending a transaction uses.
pub(crate) struct TransactionPath {
    pub config: Arc<LiveConfig>,
    pub master_duties: Arc<MasterDuties>,
    pub store: Arc<Store>,
}

impl TransactionPath {
    /// END_TRANSACTION. Ended once more is no error: 0, and nothing is stored again. "Unknown" gets no answer at all, as in Java.
    pub(crate) fn end(
        &self,
        round: &Round<'_>,
        request: &EndTransactionRequest,
        effort: Effort,
    ) -> Result<Option<Promise<EndAnswer>>, Refusal> {
        let commit = match request.commit_or_rollback {
            0 => return Ok(None),
            SysFlag::TRANSACTION_COMMIT => true,
            SysFlag::TRANSACTION_ROLLBACK => false,
            other => {
                let remark =
                    format!("commitOrRollback field wrong: {other} is none of 0, 8 (commit) and 12 (rollback)");
                return Err(Refusal::system_error(remark));
            }
        };
        let duties = self.master_duties.held()?;
        let transactions = &duties.transactions;
        let Ok(named) = PhysicalOffset::try_from(request.commit_log_offset) else { return Err(not_found()) };
        let mut at = named;
        let mut found = self.store.message_at(at, effort)?;
        if found.is_none() && self.store.is_gone(named) {
            // Its segment is, and the half may be carried on.
            let from = QueueOffset::try_from(request.tran_state_table_offset).ok();
            at = from.and_then(|from| transactions.carried(from)).ok_or_else(not_found)?;
            found = self.store.message_at(at, effort)?;
        }
        let record = found.as_deref().and_then(|bytes| Record::parse(bytes).ok());
        let Some(record) = record.filter(|record| record.topic() == TRANSACTION_HALF_TOPIC) else {
            return Err(not_found());
        };
        self.refuse_mismatch(request, &record, at == named, transactions)?;
        if !transactions.knows(&record, effort)? {
            return Err(not_found());
        }
        match transactions.end(round, &record, commit) {
            Ok(end) => Ok(Some(Promise { answer: EndAnswer, end, topic: None })),
            Err(error @ EndError::Undeliverable { .. }) => {
                Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, error.to_string()))
            }
            Err(EndError::Append(error)) => Err(append_refused(&error, self.config.current().message_len_max())),
        }
    }

    /// The record is what the request names, or where that was carried on to.
    fn refuse_mismatch(
        &self,
        request: &EndTransactionRequest,
        record: &Record<'_>,
        is_named: bool,
        transactions: &Transactions,
    ) -> Result<(), Refusal> {
        let immunity = record.property(names::CHECK_IMMUNITY_TIME_IN_SECONDS).filter(|seconds| !seconds.is_empty());
        if let Some(seconds) = immunity
            && !request.from_transaction_check
        {
            // As in Java's `TransactionalMessageUtil.getImmunityTime`: text that is no number asks for no more than everybody has.
            let timeout_ms = i64::try_from(self.config.current().transaction_time_out).unwrap_or(i64::MAX);
            let asked_ms = seconds.parse().unwrap_or(0_i64).saturating_mul(1000);
            let immunity_ms = asked_ms.max(timeout_ms);
            // One that is not open ends late, if at all: then its stamp has to do.
            let by_stamp = || now_ms().saturating_sub(record.born_timestamp());
            if transactions.age_ms(record).unwrap_or_else(by_stamp) > immunity_ms {
                // The producer may have died and another one been asked already.
                let remark = format!(
                    "the {immunity_ms} ms in which this transaction could be ended without being asked are over; wait for the question"
                );
                return Err(Refusal::new(ResponseCode::ILLEGAL_OPERATION, remark));
            }
        }
        if record.property(names::PRODUCER_GROUP).as_deref() != Some(&*request.producer_group) {
            return Err(Refusal::system_error("The producer group wrong"));
        }
        if !is_named {
            // The places cannot be held against each other any more, the transaction's id can.
            let asked = request.transaction_id.as_deref().filter(|id| !id.is_empty());
            let is_other = |id: &str| record.property(names::UNIQUE_KEY).is_some_and(|key| key != id);
            return if asked.is_some_and(is_other) { Err(not_found()) } else { Ok(()) };
        }
        if record.queue_offset().as_i64() != request.tran_state_table_offset {
            return Err(Refusal::system_error("The transaction state table offset wrong"));
        }
        if record.physical_offset().as_i64() != request.commit_log_offset {
            return Err(Refusal::system_error("The commit log offset wrong"));
        }
        Ok(())
    }

    /// RESUME_CHECK_HALF_MESSAGE: of a half that is open or was given up.
    pub(crate) fn resume_check(
        &self,
        round: &Round<'_>,
        request: &ResumeCheckHalfMessageRequest,
    ) -> Result<Reply, Refusal> {
        let duties = self.master_duties.held()?;
        let transactions = &duties.transactions;
        let id = request.msg_id.as_deref().unwrap_or_default();
        let place: OffsetMessageId =
            id.parse().map_err(|error| Refusal::system_error(format!("message id {id} is no offset id: {error}")))?;
        let found = self.store.message_at(place.physical_offset, Effort::Full)?;
        let record = found.as_deref().and_then(|bytes| Record::parse(bytes).ok());
        let is_half =
            |record: &Record<'_>| matches!(record.topic(), TRANSACTION_HALF_TOPIC | TRANSACTION_CHECK_MAX_TIME_TOPIC);
        let no_half = || Refusal::system_error(format!("there is no half message with the id {id}"));
        let record = record.filter(is_half).ok_or_else(no_half)?;
        if !transactions.knows(&record, Effort::Full)? {
            return Err(no_half());
        }
        match transactions.resume(round, &record) {
            Ok(true) => Ok(Reply::ok()),
            Ok(false) => Err(Refusal::system_error(format!("the transaction of half message {id} has ended"))),
            Err(error) => Err(append_refused(&error, self.config.current().message_len_max())),
        }
    }
}

/// The answer to an end. Java's broker waits for the flush, and says nothing of one that comes late: the transaction has ended.
pub(crate) struct EndAnswer;

impl Acknowledgement for EndAnswer {
    fn reply(self, _: Result<(), BrokenPromise>) -> Reply {
        Reply::ok()
    }
}

/// Java: the answer when `lookMessageByOffset` finds nothing.
fn not_found() -> Refusal {
    Refusal::system_error("Find prepared transaction message failed")
}
