//! One question to one validator, and the judgement of its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ledger::bundle::{BundleBuilder, BundleLayout};
use ledger::certificate::{Certificate, CertificateFault, ValidatorSet};
use ledger::identifier::BundleDigest;
use ledger::{Limits, Party, Rejection};
use seams::{Address, CallError, Method, offload};

use super::Inner;
use crate::message::{REFUSED_OVERLOADED, ValidateReply, ValidateRequest};

/// What is asked of any number of validators.
#[derive(Debug)]
pub(super) struct Question {
    request: Bytes,
    digest: BundleDigest,
    transactions: usize,
    epoch: u64,
}

impl Question {
    pub(super) fn new(bundle: &Bytes, layout: &BundleLayout, epoch: u64) -> Self {
        let request = ValidateRequest { epoch, bundle: bundle.clone() }.encode();
        Self { request, digest: layout.digest(), transactions: layout.members().len(), epoch }
    }

    /// The empty bundle: whoever certifies it is alive, has its key and speaks this version.
    pub(super) fn probe(epoch: u64, limits: &Limits) -> Self {
        let bundle = Bytes::from(BundleBuilder::new().finish());
        let layout = BundleLayout::read(&bundle, limits).expect("an empty bundle is a bundle");
        Self::new(&bundle, &layout, epoch)
    }
}

/// A certificate that was checked, and the reasons that belong to it.
#[derive(Debug, Clone)]
pub(super) struct Vouched {
    pub(super) certificate: Certificate,
    pub(super) rejections: Vec<(usize, Rejection)>,
}

/// Why a question has no answer to build on.
#[derive(Debug, Clone)]
pub(super) enum CallFault {
    /// The validator has no room and says when to come back.
    Busy(Option<Duration>),
    /// It cannot be reached, does not answer in time, or answers what cannot be read.
    Failed(String),
    /// Another validator answers there. Not a lie: addresses are given to others, and announcements outlive
    /// their validators by seconds.
    Stranger(Party),
    /// It signed or said something wrong.
    Wrong(String),
}

/// Puts the question to the validator at `to`, whose key is `validator` (`None`: any key, it is to be learned).
pub(super) async fn put(
    inner: &Inner,
    to: &Address,
    question: &Arc<Question>,
    validator: Option<Party>,
) -> Result<Vouched, CallFault> {
    let body = question.request.clone();
    let reply = inner.transport.call(to, Method::Validate, body, inner.options.call_timeout).await;
    let reply = reply.map_err(CallFault::from)?;
    let question = Arc::clone(question);
    offload(&*inner.compute, move || judge(&reply, &question, validator)).await
}

impl From<CallError> for CallFault {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused { code: REFUSED_OVERLOADED, retry_after, .. } => Self::Busy(retry_after),
            CallError::Refused { .. } | CallError::Unreachable(_) | CallError::Lost(_) | CallError::Timeout => {
                Self::Failed(error.to_string())
            }
        }
    }
}

fn judge(reply: &[u8], question: &Question, validator: Option<Party>) -> Result<Vouched, CallFault> {
    let reply = ValidateReply::decode(reply).map_err(|fault| CallFault::Failed(fault.to_string()))?;
    let answered_by = reply.certificate.validator;
    if validator.is_some_and(|expected| expected != answered_by) {
        return Err(CallFault::Stranger(answered_by));
    }
    let alone = ValidatorSet { epoch: question.epoch, required: 1, keys: [answered_by].into() };
    let certificate = std::slice::from_ref(&reply.certificate);
    alone.admit(&question.digest, question.transactions, certificate).map_err(wrong)?;
    if !reply.is_consistent() {
        return Err(CallFault::Wrong("its reasons do not match the verdicts that it signed".to_owned()));
    }
    let (certificate, rejections) = reply.into_parts();
    Ok(Vouched { certificate, rejections })
}

fn wrong(fault: CertificateFault) -> CallFault {
    CallFault::Wrong(fault.to_string())
}
