//! Views of the ledger's types as JSON, for HTTP and for the command line's `--json`.
//!
//! Identifiers are hexadecimal text. Quantities are text too: they are 128-bit integers, which JSON readers would
//! round. Times are milliseconds since 1970. What can be verified carries its canonical bytes beside the view.

use borsh::BorshSerialize;
use checker::{Attestation, Frontier, Verdict};
use ledger::identifier::canonical_bytes;
use ledger::view::LiveOutput;
use ledger::{Contract, Head, Outcome, OutcomeRecord, Receipt, Rejection, SignedHead, Terms};
use proto::convert::{Answer, Decision, Holdings, ProofStatus, SubmissionResult, TransactionStatus, Update};
use proto::problem::{CatalogueEntry, Effect, Family, Retry, explain};
use proto::{Problem, wire};
use serde_json::{Map, Value, json};

/// The canonical bytes in hexadecimal.
pub fn canonical<T: BorshSerialize>(value: &T) -> Value {
    Value::from(hex::encode(canonical_bytes(value)))
}

/// A head.
#[must_use]
pub fn head(head: &Head) -> Value {
    json!({
        "cluster": head.cluster.to_string(),
        "group": head.group,
        "batch": head.batch,
        "size": head.size.get(),
        "log_root": head.log_root.to_string(),
        "unspent_digest": head.unspent.to_string(),
        "log_time_ms": head.log_time.unix_millis(),
        "epoch": head.epoch,
        "hash": head.hash().to_string(),
    })
}

/// A head with its signatures.
#[must_use]
pub fn signed_head(signed: &SignedHead) -> Value {
    let signature = |signature: &ledger::head::HeadSignature| json!({ "node": signature.node.to_string(), "signature": hex::encode(signature.signature.as_bytes()) });
    json!({
        "head": head(&signed.head),
        "signatures": signed.signatures.iter().map(signature).collect::<Vec<_>>(),
        "canonical": canonical(signed),
    })
}

/// A line of the ledger.
#[must_use]
pub fn record(record: &OutcomeRecord) -> Value {
    let mut view = json!({
        "transaction": record.transaction.to_string(),
        "sequence": record.sequence.get(),
        "stamp": record.stamp.get(),
        "log_time_ms": record.log_time.unix_millis(),
    });
    match &record.outcome {
        Outcome::Committed { chosen } => {
            view["outcome"] = "committed".into();
            if !chosen.is_empty() {
                view["chosen"] = chosen.iter().map(ToString::to_string).collect();
            }
        }
        Outcome::Rejected(reason) => {
            view["outcome"] = "rejected".into();
            view["reason"] = rejection(reason);
        }
    }
    view
}

/// A numbered reason with its evidence and advice.
#[must_use]
pub fn rejection(reason: &Rejection) -> Value {
    let evidence = reason.evidence().into_iter().map(|(field, value)| (field.to_owned(), value.into()));
    let mut view = json!({
        "code": reason.code(),
        "name": reason.name(),
        "evidence": evidence.collect::<Map<String, Value>>(),
    });
    if let Some(entry) = explain(reason.code()) {
        view["meaning"] = entry.meaning.into();
        view["advice"] = entry.advice.into();
    }
    view
}

/// A receipt with what is needed to verify it elsewhere.
#[must_use]
pub fn receipt(receipt: &Receipt) -> Value {
    json!({
        "record": record(&receipt.record),
        "inclusion": receipt.inclusion.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "signed_head": signed_head(&receipt.head),
        "canonical": canonical(receipt),
    })
}

/// What an output holds.
#[must_use]
pub fn contract(contract: &Contract) -> Value {
    let mut view = match contract {
        Contract::Position(position) => json!({
            "kind": "position",
            "owner": position.owner.to_string(),
            "quantity": position.quantity.to_string(),
        }),
        Contract::Grant(grant) => json!({ "kind": "grant", "owner": grant.owner.to_string() }),
        Contract::Allocation(allocation) => json!({
            "kind": "allocation",
            "terms": allocation.terms.to_string(),
            "leg": allocation.leg,
            "payer": allocation.payer.to_string(),
            "return_to": allocation.return_to.to_string(),
            "quantity": allocation.quantity.to_string(),
            "expires_at_ms": allocation.expires_at.unix_millis(),
        }),
    };
    let asset = contract.asset();
    view["symbol"] = asset.symbol.as_str().into();
    view["issuer"] = asset.issuer.to_string().into();
    view
}

/// An output.
#[must_use]
pub fn output(output: &LiveOutput) -> Value {
    json!({
        "id": output.id.to_string(),
        "transaction": output.origin.transaction.to_string(),
        "index": output.origin.index,
        "sequence": output.place.sequence.get(),
        "contract": contract(&output.contract),
    })
}

/// Settlement terms.
#[must_use]
pub fn terms(terms: &Terms) -> Value {
    let leg = |leg: &ledger::Leg| {
        json!({
            "payer": leg.payer.to_string(),
            "receiver": leg.receiver.to_string(),
            "symbol": leg.asset.symbol.as_str(),
            "issuer": leg.asset.issuer.to_string(),
            "quantity": leg.quantity.to_string(),
        })
    };
    json!({
        "id": terms.id().to_string(),
        "nonce": terms.nonce.to_string(),
        "legs": terms.legs.iter().map(leg).collect::<Vec<_>>(),
    })
}

/// What is known about a transaction.
#[must_use]
pub fn transaction_status(status: &TransactionStatus) -> Value {
    let mut view = json!({ "head": head(&status.head) });
    match &status.sequenced {
        Some((line, batch)) => {
            view["record"] = record(line);
            view["batch"] = (*batch).into();
        }
        None => {
            view["record"] = Value::Null;
            view["forgotten_until_ms"] = status.forgotten_until.unix_millis().into();
        }
    }
    if let Some(body) = &status.body {
        view["canonical"] = hex::encode(body).into();
    }
    view
}

/// A page of holdings.
#[must_use]
pub fn holdings(page: &Holdings) -> Value {
    json!({
        "outputs": page.outputs.iter().map(output).collect::<Vec<_>>(),
        "head": head(&page.head),
        "next": page.next.as_ref().map(hex::encode),
    })
}

/// A batch as those who watch see it.
#[must_use]
pub fn update(update: &Update) -> Value {
    let consumed = |consumed: &proto::convert::Consumed| json!({ "output": output(&consumed.output), "spender_sequence": consumed.spender.get() });
    let proposal = |proposal: &proto::convert::Proposal| {
        json!({
            "terms": terms(&proposal.terms),
            "allocations": proposal.allocations.iter().map(output).collect::<Vec<_>>(),
        })
    };
    json!({
        "batch": update.head.batch,
        "head": head(&update.head),
        "created": update.created.iter().map(output).collect::<Vec<_>>(),
        "consumed": update.consumed.iter().map(consumed).collect::<Vec<_>>(),
        "records": update.records.iter().map(record).collect::<Vec<_>>(),
        "proposals": update.proposals.iter().map(proposal).collect::<Vec<_>>(),
    })
}

/// What became of a submitted transaction.
#[must_use]
pub fn answer(answer: &Answer) -> Value {
    let mut view = match &answer.decision {
        Decision::Sequenced { record: line, batch } => {
            let mut view = record(line);
            view["batch"] = (*batch).into();
            view
        }
        Decision::Refused(reason) => json!({ "outcome": "refused", "reason": rejection(reason) }),
        Decision::Unknown(why) => json!({ "outcome": "unknown", "problem": problem(why) }),
    };
    view["transaction"] = answer.transaction.to_string().into();
    view
}

/// What became of a submission.
#[must_use]
pub fn submission_result(result: &SubmissionResult) -> Value {
    match &result.answers {
        Ok(answers) => json!({ "tag": result.tag, "outcomes": answers.iter().map(answer).collect::<Vec<_>>() }),
        Err(why) => json!({ "tag": result.tag, "refused": problem(why) }),
    }
}

/// An attestation with its number.
#[must_use]
pub fn attestation(number: u64, attestation: &Attestation) -> Value {
    let Attestation { findings, prover, .. } = attestation;
    let (statement, statistics) = (&findings.statement, &findings.statistics);
    let mut view = json!({
        "number": number,
        "prover": prover.to_string(),
        "hash": attestation.hash().to_string(),
        "predecessor": findings.predecessor.to_string(),
        "verdict": verdict_name(&findings.verdict),
        "first_batch": statement.first_batch,
        "last_batch": statement.last_batch,
        "before": frontier(&statement.before),
        "after": frontier(&statement.after),
        "evidence": statement.evidence.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "versions": {
            "checker": findings.versions.checker,
            "encoder": findings.versions.encoder,
            "solver": findings.versions.solver,
        },
        "patterns": findings.patterns.len(),
        "statistics": {
            "transactions": statistics.transactions,
            "chunks": statistics.chunks,
            "components": statistics.components,
            "windows": statistics.windows,
            "pattern_hits": statistics.pattern_hits,
            "pattern_misses": statistics.pattern_misses,
            "audits": statistics.audits,
            "solver_checks": statistics.solver_checks,
            "solver_unknown": statistics.solver_unknown,
            "undecided": statistics.undecided,
            "solver_us": statistics.solver_us,
            "total_us": statistics.total_us,
        },
        "canonical": canonical(attestation),
    });
    if !findings.verdict.is_proved() {
        view["why"] = findings.verdict.to_string().into();
    }
    view
}

/// A verdict as a word.
#[must_use]
pub const fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Proved => "PROVED",
        Verdict::Refuted(_) => "REFUTED",
        Verdict::Inconclusive(_) => "INCONCLUSIVE",
    }
}

fn frontier(frontier: &Frontier) -> Value {
    json!({
        "batch": frontier.batch,
        "size": frontier.next.get(),
        "log_root": frontier.log_root.to_string(),
        "unspent_digest": frontier.unspent.to_string(),
        "log_time_ms": frontier.log_time.unix_millis(),
        "epoch": frontier.epoch,
    })
}

/// How far the ledger is proved.
#[must_use]
pub fn proof_status(status: &ProofStatus) -> Value {
    let prover = |prover: &proto::convert::Prover| {
        json!({
            "key": prover.key.to_string(),
            "last": prover.last.map(|hash| hash.to_string()),
            "number": prover.number,
            "last_batch": prover.last_batch,
            "proved_batches": prover.proved,
            "inconclusive_batches": prover.inconclusive,
            "alarm": prover.alarm.as_ref().map(|(batch, words)| json!({ "batch": batch, "words": words })),
        })
    };
    json!({
        "attestations": status.attestations,
        "attested_batch": status.attested_batch,
        "required": status.required,
        "provers": status.provers.iter().map(prover).collect::<Vec<_>>(),
    })
}

/// A problem in the form of RFC 9457.
#[must_use]
pub fn problem(problem: &Problem) -> Value {
    let entry = problem.kind.entry();
    let mut view = json!({
        "type": format!("/v1/errors/{}", entry.code),
        "title": entry.meaning.trim(),
        "status": entry.http,
        "detail": problem.message,
        "code": entry.code,
        "name": entry.name,
        "advice": entry.advice,
        "retry": retry(entry.retry),
        "effect": effect(entry.effect),
    });
    if let Some(pause) = problem.retry_after {
        view["retry_after_ms"] = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).into();
    }
    if let Some(batch) = problem.earliest_batch {
        view["earliest_batch"] = batch.into();
    }
    if !problem.violations.is_empty() {
        let violation = |violation: &proto::problem::Violation| json!({ "field": violation.field, "description": violation.description });
        view["violations"] = problem.violations.iter().map(violation).collect();
    }
    if let Some((kind, name)) = &problem.resource {
        view["resource"] = json!({ "kind": kind, "name": name });
    }
    view
}

/// A line of the catalogue.
#[must_use]
pub fn catalogue_entry(entry: &CatalogueEntry) -> Value {
    json!({
        "code": entry.code,
        "name": entry.name,
        "meaning": entry.meaning,
        "advice": entry.advice,
        "family": family(entry.family),
        "retry": retry(entry.retry),
        "effect": effect(entry.effect),
        "grpc": format!("{:?}", entry.grpc),
        "http": entry.http,
    })
}

/// A family of the catalogue, as a word.
#[must_use]
pub const fn family(family: Family) -> &'static str {
    match family {
        Family::OrderFree => "order-free rejection",
        Family::OrderBound => "order-bound rejection",
        Family::Problem => "problem",
    }
}

/// Whether another attempt can help, as a word.
#[must_use]
pub const fn retry(retry: Retry) -> &'static str {
    match retry {
        Retry::Never => "never",
        Retry::Later => "later",
        Retry::Elsewhere => "elsewhere",
    }
}

/// What it says about the request, as a word.
#[must_use]
pub const fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "none",
        Effect::Unknown => "unknown",
    }
}

/// A cluster's description.
#[must_use]
pub fn cluster(cluster: &wire::ClusterInfo) -> Value {
    let limits = cluster.limits.unwrap_or_default();
    json!({
        "cluster": hex::encode(&cluster.cluster),
        "name": cluster.cluster_name,
        "group": cluster.group,
        "protocol_version": cluster.protocol_version,
        "software_version": cluster.software_version,
        "node": cluster.node,
        "leader": number_or_null(cluster.leader),
        "members": cluster.members.iter().map(member).collect::<Vec<_>>(),
        "validators": cluster.validators.as_ref().map(validators),
        "limits": {
            "transaction_bytes_max": limits.transaction_bytes_max,
            "signers_max": limits.signers_max,
            "inputs_max": limits.inputs_max,
            "references_max": limits.references_max,
            "outputs_max": limits.outputs_max,
            "supply_max": limits.supply_max,
            "terms_max": limits.terms_max,
            "legs_max": limits.legs_max,
            "group_members_max": limits.group_members_max,
            "validity_ms_max": limits.validity_ms_max,
            "command_inputs_max": limits.command_inputs_max,
            "bundle_transactions_max": limits.bundle_transactions_max,
            "bundle_bytes_max": limits.bundle_bytes_max,
        },
    })
}

/// A member of the cluster.
#[must_use]
pub fn member(member: &wire::Member) -> Value {
    json!({
        "node": member.node,
        "address": member.address,
        "voter": member.voter,
        "key": text_or_null(&hex::encode(&member.key)),
        "http_address": text_or_null(&member.http_address),
    })
}

/// The validator set and what the node knows of validators.
#[must_use]
pub fn validators(set: &wire::ValidatorSetInfo) -> Value {
    let known = |validator: &wire::ValidatorStatus| {
        json!({
            "address": validator.address,
            "key": text_or_null(&hex::encode(&validator.key)),
            "state": validator.state,
            "in_flight": validator.in_flight,
            "bundles": validator.bundles,
        })
    };
    json!({
        "epoch": set.epoch,
        "required": set.required,
        "keys": set.keys.iter().map(hex::encode).collect::<Vec<_>>(),
        "known": set.known.iter().map(known).collect::<Vec<_>>(),
    })
}

/// A node's own state.
#[must_use]
pub fn node_status(status: &wire::NodeStatus) -> Value {
    let newest: Option<Head> = proto::convert::canonical("head", &status.head).ok();
    json!({
        "node": status.node,
        "role": status.role,
        "health": status.health,
        "term": status.term,
        "leader": number_or_null(status.leader),
        "last_log_index": status.last_log_index,
        "committed_index": status.committed_index,
        "applied_index": status.applied_index,
        "snapshot_index": status.snapshot_index,
        "purged_index": status.purged_index,
        "head": newest.as_ref().map(head),
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
        "validators": status.validators.as_ref().map(validators),
        "log_bytes": status.log_bytes,
        "ledger_bytes": status.ledger_bytes,
        "live_outputs": status.live_outputs,
        "queued_transactions": status.queued_transactions,
        "earliest_batch": status.earliest_batch,
        "keep_history_ms": status.keep_history_ms,
        "protocol": status.protocol,
        "protocol_newest": status.protocol_newest,
        "software_version": status.software_version,
        "proofs": status.proofs.as_ref().and_then(|it| ProofStatus::try_from(it).ok()).as_ref().map(proof_status),
    })
}

/// Numbers of nodes begin at 1; 0 is nobody.
fn number_or_null(number: u64) -> Value {
    if number == 0 { Value::Null } else { number.into() }
}

fn text_or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}
