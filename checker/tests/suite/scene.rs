//! A small history with everything that can be lied about, and the lies.

use std::collections::BTreeMap;

use checker::collect::{self, Line, Testimony};
use checker::evidence::Fate;
use checker::frontier::Standing;
use checker::{Chunk, Invariant};
use ledger::transaction::ReceivedTransaction;
use ledger::{
    Allocation, AtomicGroupId, Body, ClusterId, Contract, Grant, Input, Intent, Leg, Limits, LogTime, Movements,
    Origin, Outcome, Position, Quantity, Reference, Rejection, Sequence, SupplyChange, Terms, TermsAction, TermsEntry,
    Transaction, TransactionId, Unlock,
};

use crate::fixture;
use crate::history::Batch;
use crate::liar;
use crate::support::{Submitted, TestLedger, asset, identity, key, party};

/// What is told of the history, and who is who in it.
pub(crate) struct Scene {
    pub(crate) testimonies: Vec<Testimony>,
    names: BTreeMap<&'static str, Transaction>,
}

/// A lie: what is told instead, what must be found, who must be named, and whether the solver sees it too.
pub(crate) struct Lie {
    pub(crate) name: &'static str,
    pub(crate) tell: fn(&Scene) -> Vec<Chunk>,
    pub(crate) invariant: Invariant,
    pub(crate) names: &'static [&'static str],
    pub(crate) seen_by_solver: bool,
}

/// A transaction to be.
#[derive(Clone, Default)]
struct Draft {
    movements: Movements,
    signers: Vec<&'static str>,
}

impl Draft {
    fn signed_by(signers: &[&'static str]) -> Self {
        Self { signers: signers.to_vec(), ..Self::default() }
    }

    fn spend(self, of: &Transaction, index: u16) -> Self {
        self.unlock(of, index, Unlock::Owner)
    }

    fn unlock(mut self, of: &Transaction, index: u16, unlock: Unlock) -> Self {
        let (origin, contract) = output(of, index);
        self.movements.inputs.push(Input { origin, contract, unlock });
        self
    }

    fn refer(mut self, of: &Transaction, index: u16) -> Self {
        let (origin, contract) = output(of, index);
        self.movements.references.push(Reference { origin, contract });
        self
    }

    fn pay(self, owner: &str, quantity: i128, symbol: &str) -> Self {
        self.create(position(owner, quantity, symbol))
    }

    fn create(mut self, contract: Contract) -> Self {
        self.movements.outputs.push(contract);
        self
    }

    fn issue(mut self, quantity: i128, symbol: &str) -> Self {
        self.movements.supply.push(SupplyChange { asset: asset(symbol), quantity: Quantity::new(quantity) });
        self
    }

    fn reveal(mut self, action: TermsAction, terms: &Terms) -> Self {
        self.movements.terms.push(TermsEntry { action, terms: terms.clone() });
        self
    }

    fn body(&self, nonce: u64) -> Body {
        let mut signers: Vec<_> = self.signers.iter().map(|name| party(name)).collect();
        signers.sort_unstable();
        Body {
            cluster: identity().cluster,
            group: 0,
            valid_until: LogTime::from_unix_millis(100_000),
            nonce,
            seen_head: None,
            signers,
            intent: Intent::Movements(self.movements.clone()),
            atomic: None,
        }
    }

    fn sign(&self, nonce: u64) -> Transaction {
        sign(self.body(nonce), &self.signers)
    }
}

fn sign(body: Body, signers: &[&'static str]) -> Transaction {
    let name = |party_: &ledger::Party| signers.iter().find(|name| party(name) == *party_).unwrap();
    let signatures = body.signers.iter().map(|signer| key(name(signer)).sign_transaction(&body)).collect();
    Transaction { body, signatures }
}

/// Transactions that only happen together.
fn group(drafts: &[(Draft, u64)]) -> Vec<Transaction> {
    let bodies: Vec<Body> = drafts.iter().map(|(draft, nonce)| draft.body(*nonce)).collect();
    let id = AtomicGroupId::of(&bodies.iter().map(Body::id).collect::<Vec<_>>());
    let member = |(body, (draft, _)): (Body, &(Draft, u64))| sign(Body { atomic: Some(id), ..body }, &draft.signers);
    bodies.into_iter().zip(drafts).map(member).collect()
}

fn output(of: &Transaction, index: u16) -> (Origin, Contract) {
    let Intent::Movements(movements) = &of.body.intent else { panic!("named outputs only") };
    (Origin { transaction: of.id(), index }, movements.outputs[usize::from(index)])
}

fn position(owner: &str, quantity: i128, symbol: &str) -> Contract {
    Contract::Position(Position { asset: asset(symbol), owner: party(owner), quantity: Quantity::new(quantity) })
}

fn terms(nonce: u64) -> Terms {
    let leg = |payer, receiver, symbol, quantity| Leg {
        payer: party(payer),
        receiver: party(receiver),
        asset: asset(symbol),
        quantity: Quantity::new(quantity),
    };
    Terms { legs: vec![leg("alice", "bob", "USD", 40), leg("bob", "alice", "EUR", 50)], nonce }
}

fn lock(terms: &Terms) -> Contract {
    Contract::Allocation(Allocation {
        terms: terms.id(),
        leg: 0,
        asset: asset("USD"),
        quantity: Quantity::new(40),
        payer: party("alice"),
        return_to: party("alice"),
        expires_at: LogTime::from_unix_millis(5_000),
    })
}

impl Scene {
    /// Issues; then races, chains, terms, bookkeeping and groups; then what expired.
    pub(crate) fn new() -> Self {
        let issue = |nonce, symbol: &'static str, to: &str, quantity| {
            Draft::signed_by(&[crate::support::issuer_of(symbol)])
                .issue(quantity, symbol)
                .pay(to, quantity, symbol)
                .sign(nonce)
        };
        let usd = issue(1, "USD", "alice", 100);
        let more = issue(2, "USD", "alice", 40);
        let most = issue(3, "USD", "alice", 40);
        let eur = issue(4, "EUR", "bob", 50);
        let euros = issue(5, "EUR", "bob", 50);
        let gold = issue(6, "GOLD", "bob", 10);
        let grant = Contract::Grant(Grant { asset: asset("USD"), owner: party("carol") });
        let grant = Draft::signed_by(&["bank"]).create(grant).sign(7);

        let winner = Draft::signed_by(&["alice"]).spend(&usd, 0).pay("bob", 60, "USD").pay("alice", 40, "USD").sign(11);
        let loser = Draft::signed_by(&["alice"]).spend(&usd, 0).pay("carol", 100, "USD").sign(12);
        let chained = Draft::signed_by(&["bob"]).spend(&winner, 0).pay("carol", 60, "USD").sign(13);
        let orphan = Draft::signed_by(&["carol"]).spend(&loser, 0).pay("bob", 100, "USD").sign(14);
        let (settled, expiring) = (terms(1), terms(2));
        let propose = |from: &Transaction, terms: &Terms, nonce| {
            let draft = Draft::signed_by(&["alice"]).spend(from, 0).create(lock(terms));
            draft.reveal(TermsAction::Propose, terms).sign(nonce)
        };
        let proposal = propose(&more, &settled, 15);
        let stale = propose(&most, &expiring, 16);
        let settle = |locked: &Transaction, funds: &Transaction, terms: &Terms, nonce| {
            let draft = Draft::signed_by(&["bob"]).unlock(locked, 0, Unlock::Settle).spend(funds, 0);
            let draft = draft.pay("bob", 40, "USD").pay("alice", 50, "EUR");
            draft.reveal(TermsAction::Settle, terms).sign(nonce)
        };
        let settlement = settle(&proposal, &eur, &settled, 17);
        let book = |nonce| {
            let draft = Draft::signed_by(&["carol"]).refer(&grant, 0);
            draft.pay("carol", 5, "USD").pay("carol", -5, "USD").sign(nonce)
        };
        let (booked, late_booking) = (book(18), book(20));
        let revocation = Draft::signed_by(&["bank"]).spend(&grant, 0).sign(19);
        let whole = group(&[
            (Draft::signed_by(&["alice"]).spend(&winner, 1).pay("carol", 40, "USD"), 21),
            (Draft::signed_by(&["bob"]).spend(&gold, 0).pay("alice", 10, "GOLD"), 22),
        ]);
        let failed = group(&[
            (Draft::signed_by(&["carol"]).spend(&chained, 0).pay("bob", 60, "USD"), 23),
            (Draft::signed_by(&["bob"]).spend(&gold, 0).pay("carol", 10, "GOLD"), 24),
        ]);
        let late_settlement = settle(&stale, &euros, &expiring, 31);
        let give_back =
            |nonce| Draft::signed_by(&["alice"]).unlock(&stale, 0, Unlock::Expire).pay("alice", 40, "USD").sign(nonce);
        let (returned, again) = (give_back(32), give_back(33));
        let last = Draft::signed_by(&["bob"]).spend(&euros, 0).pay("carol", 20, "EUR").pay("bob", 30, "EUR").sign(34);

        let single = |transaction: &Transaction| Submitted::new(vec![transaction.clone()]);
        let first = [&usd, &more, &most, &eur, &euros, &gold, &grant].map(single).to_vec();
        let mut second =
            [&winner, &loser, &chained, &orphan, &proposal, &stale, &settlement, &booked, &revocation, &late_booking]
                .map(single)
                .to_vec();
        second.extend([Submitted::new(whole.clone()), Submitted::new(failed.clone())]);
        let third = [&late_settlement, &returned, &again, &last].map(single).to_vec();
        let mut ledger = TestLedger::new();
        let testimonies = [(1_000, first), (2_000, second), (9_000, third)].into_iter().map(|(time, submissions)| {
            let batch = Batch { log_time: LogTime::from_unix_millis(time), submissions };
            fixture::testimony(&mut ledger, &batch)
        });
        let [whole_one, whole_two] = whole.try_into().unwrap();
        let [failed_one, failed_two] = failed.try_into().unwrap();
        Self {
            testimonies: testimonies.collect(),
            names: BTreeMap::from([
                ("usd", usd),
                ("eur", eur),
                ("gold", gold),
                ("grant", grant),
                ("winner", winner),
                ("loser", loser),
                ("chained", chained),
                ("orphan", orphan),
                ("proposal", proposal),
                ("stale", stale),
                ("settlement", settlement),
                ("booked", booked),
                ("revocation", revocation),
                ("late booking", late_booking),
                ("whole one", whole_one),
                ("whole two", whole_two),
                ("failed one", failed_one),
                ("failed two", failed_two),
                ("late settlement", late_settlement),
                ("returned", returned),
                ("again", again),
                ("last", last),
                ("euros", euros),
            ]),
        }
    }

    /// The transaction with this name.
    pub(crate) fn id(&self, name: &str) -> TransactionId {
        self.names[name].id()
    }

    /// The history as it was, in chunks of up to six transactions.
    pub(crate) fn honest(&self) -> Vec<Chunk> {
        fixture::chunks(&self.testimonies, 6).0
    }

    fn place(&self, name: &str) -> (usize, usize) {
        let id = self.id(name);
        let found = self.testimonies.iter().enumerate().find_map(|(batch, testimony)| {
            Some((batch, testimony.lines.iter().position(|line| line.record.transaction == id)?))
        });
        found.unwrap()
    }

    /// The history up to the batch of a transaction, with that batch told otherwise; everything is made to fit.
    fn lie(&self, name: &str, change: impl FnOnce(&mut Testimony, usize)) -> Vec<Chunk> {
        let (batch, line) = self.place(name);
        let (mut chunks, replay) = fixture::chunks(&self.testimonies[..batch], 6);
        let mut told = self.testimonies[batch].clone();
        change(&mut told, line);
        chunks.extend(liar::chunks(&told, &replay, 6));
        chunks
    }

    /// The same, with head and frontier as they were: what the nodes signed.
    fn lie_under_the_real_head(&self, name: &str, change: impl FnOnce(&mut Testimony, usize)) -> Vec<Chunk> {
        let (batch, _) = self.place(name);
        let head = self.testimonies[batch].head;
        let mut chunks = self.lie(name, change);
        let last = chunks.last_mut().unwrap();
        last.head = Some(head);
        (last.after.next, last.after.log_root, last.after.unspent) = (head.size, head.log_root, head.unspent);
        chunks
    }

    fn outcome(&self, name: &str, outcome: Outcome) -> Vec<Chunk> {
        self.lie(name, |told, line| told.lines[line].record.outcome = outcome)
    }

    fn committed(&self, name: &str) -> Vec<Chunk> {
        self.outcome(name, Outcome::Committed { chosen: Vec::new() })
    }

    fn rejected(&self, name: &str, reason: Rejection) -> Vec<Chunk> {
        self.outcome(name, Outcome::Rejected(reason))
    }

    fn output(&self, name: &str, index: u16) -> ledger::OutputId {
        let (origin, contract) = output(&self.names[name], index);
        origin.output_id(&contract)
    }

    /// Another transaction stands where `name` stood, and is said to have happened.
    fn instead(&self, name: &str, transaction: Transaction) -> Vec<Chunk> {
        self.lie(name, |told, line| {
            let received = ReceivedTransaction::from(transaction);
            let line = &mut told.lines[line];
            line.record.transaction = received.id();
            line.record.outcome = Outcome::Committed { chosen: Vec::new() };
            line.received = received;
        })
    }

    /// A transaction of the last place, spending bob's 50 EUR.
    fn last(&self, change: impl FnOnce(Draft) -> Draft) -> Vec<Chunk> {
        let draft = change(Draft::signed_by(&["bob"]).spend(&self.names["euros"], 0));
        self.instead("last", draft.sign(34))
    }

    /// What the winner of the race consumed, and the winner.
    pub(crate) fn spent_by_winner(&self) -> (ledger::OutputId, TransactionId) {
        (self.output("usd", 0), self.id("winner"))
    }

    /// One more transaction that would consume it.
    pub(crate) fn spends_what_winner_spent(&self) -> Transaction {
        Draft::signed_by(&["alice"]).spend(&self.names["usd"], 0).pay("bob", 100, "USD").sign(41)
    }

    /// The honest chunks with one of them changed; the one with this transaction.
    fn chunk_with(&self, name: &str, change: impl FnOnce(&mut Chunk, usize)) -> Vec<Chunk> {
        let (mut chunks, id) = (self.honest(), self.id(name));
        let at = chunks.iter().position(|chunk| chunk.entries.iter().any(|entry| entry.id() == id)).unwrap();
        let entry = chunks[at].entries.iter().position(|entry| entry.id() == id).unwrap();
        change(&mut chunks[at], entry);
        chunks.truncate(at + 1);
        chunks
    }
}

/// Every lie of the list.
pub(crate) fn lies() -> Vec<Lie> {
    use Invariant::{
        Admission, Commitment, Completeness, Composition, Conservation, Constraint, Group, Observation, Order,
        PostState, PreState, RealTime,
    };
    let outcome = Invariant::Outcome;
    let lie = |name, invariant, names, seen_by_solver, tell| Lie { name, tell, invariant, names, seen_by_solver };
    vec![
        lie("two outcomes swapped", outcome, &["winner", "loser"], true, |scene| {
            scene.lie("winner", |told, line| {
                let won = told.lines[line].record.outcome.clone();
                told.lines[line].record.outcome = told.lines[line + 1].record.outcome.clone();
                told.lines[line + 1].record.outcome = won;
            })
        }),
        lie("both spenders of one output committed", outcome, &["loser", "winner"], true, |scene| {
            scene.committed("loser")
        }),
        lie("the wrong spender won", outcome, &["winner", "loser"], true, |scene| {
            let (output, winner) = (scene.output("usd", 0), scene.id("loser"));
            scene.lie("winner", |told, line| {
                let reason = Rejection::InputSpent { input: 0, output, winner };
                told.lines[line].record.outcome = Outcome::Rejected(reason);
                told.lines[line + 1].record.outcome = Outcome::Committed { chosen: Vec::new() };
            })
        }),
        lie("spending an output that was never created", outcome, &["last*"], true, |scene| {
            let mut never = scene.names["euros"].clone();
            never.body.nonce = 99;
            scene.instead("last", Draft::signed_by(&["bob"]).spend(&never, 0).pay("bob", 50, "EUR").sign(34))
        }),
        lie("spending before the creation", outcome, &["chained", "winner"], true, |scene| {
            scene.lie("winner", |told, line| told.lines.swap(line, line + 2))
        }),
        lie("spending from a rejected creator", outcome, &["orphan", "loser"], true, |scene| {
            scene.committed("orphan")
        }),
        lie("a committed transaction reported rejected", outcome, &["chained"], true, |scene| {
            let (output, winner) = (scene.output("winner", 0), scene.id("orphan"));
            scene.rejected("chained", Rejection::InputSpent { input: 0, output, winner })
        }),
        lie("a rejection that names the wrong input", outcome, &["loser"], true, |scene| {
            let (output, winner) = (scene.output("usd", 0), scene.id("winner"));
            scene.rejected("loser", Rejection::InputSpent { input: 1, output, winner })
        }),
        lie("a rejection that names the wrong winner", outcome, &["loser", "winner"], true, |scene| {
            let (output, winner) = (scene.output("usd", 0), scene.id("chained"));
            scene.rejected("loser", Rejection::InputSpent { input: 0, output, winner })
        }),
        lie("spent said to be unknown", outcome, &["loser", "winner"], true, |scene| {
            scene.rejected("loser", Rejection::InputUnknown { input: 0, output: scene.output("usd", 0) })
        }),
        lie("order against real time", RealTime, &["chained", "loser"], true, |scene| {
            scene.chunk_with("chained", |chunk, entry| {
                // answered before the one ahead of it in the order was invoked
                let place = chunk.entries[entry - 1].sequence;
                chunk.entries[entry - 1].invoked = place;
                chunk.entries[entry].responded = Some(Sequence::new(place.get() - 1));
                liar::make_fit(chunk);
            })
        }),
        lie("an observation of something else", Observation, &["chained"], true, |scene| {
            scene.chunk_with("chained", |chunk, entry| chunk.entries[entry].observations[0] = Some(Fate::Absent))
        }),
        lie("a forged read: another creator's place", Observation, &["chained"], true, |scene| {
            scene.chunk_with("chained", |chunk, entry| {
                chunk.entries[entry].observations[0] = Some(Fate::Live { created_at: Sequence::new(0) });
            })
        }),
        lie("value created", Conservation, &["last*"], true, |scene| {
            scene.last(|draft| draft.pay("bob", 51, "EUR"))
        }),
        lie("value destroyed", Conservation, &["last*"], true, |scene| {
            scene.last(|draft| draft.pay("bob", 49, "EUR"))
        }),
        lie("another asset's value used", Conservation, &["last*"], true, |scene| {
            scene.last(|draft| draft.pay("bob", 50, "USD"))
        }),
        lie("minting by overflow", Conservation, &["last*"], true, |scene| {
            scene.last(|draft| draft.pay("bob", i128::MAX, "EUR").pay("bob", i128::MAX, "EUR").pay("bob", 52, "EUR"))
        }),
        lie("a negative constrained position", Constraint, &["last*"], true, |scene| {
            scene.last(|draft| draft.pay("bob", 60, "EUR").pay("bob", -10, "EUR"))
        }),
        lie("a bookkeeping pair without its grant", Constraint, &["late booking*"], true, |scene| {
            let draft = Draft::signed_by(&["carol"]).pay("carol", 5, "USD").pay("carol", -5, "USD");
            scene.instead("late booking", draft.sign(20))
        }),
        lie("a bookkeeping pair after the revocation", outcome, &["late booking", "revocation"], true, |scene| {
            scene.committed("late booking")
        }),
        lie("an allocation returned twice", outcome, &["again", "returned"], true, |scene| {
            scene.committed("again")
        }),
        lie("an allocation settled after its expiry", outcome, &["late settlement"], true, |scene| {
            scene.lie("late settlement", |told, line| {
                told.lines[line].record.outcome = Outcome::Committed { chosen: Vec::new() };
            })
        }),
        lie("an allocation settled under other terms", Admission, &["settlement*"], true, |scene| {
            let other = terms(77);
            let draft = Draft::signed_by(&["bob"]).unlock(&scene.names["proposal"], 0, Unlock::Settle);
            let draft = draft.spend(&scene.names["eur"], 0).pay("bob", 40, "USD").pay("alice", 50, "EUR");
            scene.instead("settlement", draft.reveal(TermsAction::Settle, &other).sign(17))
        }),
        lie("a silent party paid less than its due", Admission, &["settlement*"], true, |scene| {
            let draft = Draft::signed_by(&["bob"]).unlock(&scene.names["proposal"], 0, Unlock::Settle);
            let draft =
                draft.spend(&scene.names["eur"], 0).pay("bob", 40, "USD").pay("alice", 49, "EUR").pay("bob", 1, "EUR");
            scene.instead("settlement", draft.reveal(TermsAction::Settle, &terms(1)).sign(17))
        }),
        lie("a right that nobody signed for", Admission, &["last*"], true, |scene| {
            let draft = Draft::signed_by(&["carol"]).spend(&scene.names["euros"], 0);
            scene.instead("last", draft.pay("carol", 50, "EUR").sign(34))
        }),
        lie("a missing transaction", Commitment, &[], false, |scene| {
            scene.lie_under_the_real_head("last", |told, line| drop(told.lines.remove(line)))
        }),
        lie("a missing transaction, leaving a gap", Order, &["chained"], false, |scene| {
            scene.chunk_with("chained", |chunk, entry| drop(chunk.entries.remove(entry - 1)))
        }),
        lie("a repeated transaction", Order, &["last"], true, |scene| {
            scene.lie("last", |told, line| {
                let repeated: Line = told.lines[line].clone();
                told.lines.push(repeated);
            })
        }),
        lie("a grant given twice by one transaction", Order, &["grant"], true, |scene| {
            let (_, place) = scene.place("grant");
            let mut chunks = scene.lie("grant", |told, line| {
                let repeated: Line = told.lines[line].clone();
                told.lines.push(repeated);
            });
            // nothing but the repetition itself gives it away: it is live since the first time
            let (first, output) = (Sequence::new(u64::try_from(place).unwrap()), scene.output("grant", 0));
            let last = chunks.last_mut().unwrap();
            let touched = last.touched.iter_mut().find(|touched| touched.id == output).unwrap();
            touched.after = Fate::Live { created_at: first };
            liar::make_fit(last);
            chunks
        }),
        lie("a transaction that is valid for longer than may be", Admission, &["last*"], true, |scene| {
            let mut body = Draft::signed_by(&["bob"]).spend(&scene.names["euros"], 0).pay("bob", 50, "EUR").body(34);
            body.valid_until = LogTime::from_unix_millis(3 * Limits::V1.validity_ms_max);
            scene.instead("last", sign(body, &["bob"]))
        }),
        lie("a transaction of another ledger", Admission, &["last*"], true, |scene| {
            let mut body = Draft::signed_by(&["bob"]).spend(&scene.names["euros"], 0).pay("bob", 50, "EUR").body(34);
            body.cluster = ClusterId::of_name("another");
            scene.instead("last", sign(body, &["bob"]))
        }),
        lie("a transaction that the log does not have", Commitment, &[], false, |scene| {
            let foreign = Draft::signed_by(&["bob"]).spend(&scene.names["euros"], 0).pay("carol", 50, "EUR").sign(35);
            let received = ReceivedTransaction::from(foreign);
            scene.lie_under_the_real_head("last", |told, line| {
                told.lines[line].record.transaction = received.id();
                told.lines[line].received = received;
            })
        }),
        lie("transactions reordered inside a chunk", Commitment, &[], false, |scene| {
            scene.lie_under_the_real_head("last", |told, line| told.lines.swap(line, line - 1))
        }),
        lie("chunks reordered", Composition, &[], false, |scene| {
            let mut chunks = scene.honest();
            chunks.swap(2, 3);
            chunks
        }),
        lie("a chunk dropped", Composition, &[], false, |scene| {
            let mut chunks = scene.honest();
            chunks.remove(2);
            chunks
        }),
        lie("a chunk repeated", Composition, &[], false, |scene| {
            let mut chunks = scene.honest();
            let repeated = chunks[2].clone();
            chunks.insert(2, repeated);
            chunks
        }),
        lie("a stale frontier", Composition, &[], false, |scene| {
            let mut chunks = scene.honest();
            chunks[3].before = chunks[2].before;
            chunks
        }),
        lie("a foreign frontier after", Commitment, &[], false, |scene| {
            let mut chunks = scene.honest();
            chunks[2].after.unspent = chunks[1].after.unspent;
            chunks
        }),
        lie("a head of other outcomes", Commitment, &[], false, |scene| {
            let mut chunks = scene.honest();
            let head = chunks[1].head.unwrap();
            let last = chunks.last_mut().unwrap();
            last.head = Some(ledger::Head { log_root: head.log_root, ..last.head.unwrap() });
            chunks
        }),
        lie("an epoch that nobody began", Commitment, &[], false, |scene| {
            let mut chunks = scene.honest();
            let last = chunks.last_mut().unwrap();
            last.head = Some(ledger::Head { epoch: 1, ..last.head.unwrap() });
            last.after.epoch = 1;
            chunks
        }),
        lie("a part of a batch at another log time", Composition, &[], false, |scene| {
            let mut chunks = scene.honest();
            let inside = chunks.iter().position(|chunk| chunk.before.standing == Standing::InsideBatch).unwrap();
            chunks[inside].log_time = LogTime::from_unix_millis(chunks[inside].log_time.unix_millis() + 1);
            chunks
        }),
        lie("an output told live before its creation", PreState, &["winner", "chained"], true, |scene| {
            let mut chunks = scene.committed("loser");
            let at = chunks.iter().position(|chunk| chunk.entries.iter().any(|entry| entry.id() == scene.id("winner")));
            chunks.truncate(at.unwrap());
            let mut forged = scene.chunk_with("chained", |_, _| {}).pop().unwrap();
            let output = scene.output("winner", 0);
            let touched = forged.touched.iter_mut().find(|touched| touched.id == output).unwrap();
            touched.before = Fate::Live { created_at: Sequence::new(0) };
            liar::make_fit(&mut forged);
            chunks.push(forged);
            chunks
        }),
        lie("a forged read across batches", PreState, &["returned"], false, |scene| {
            scene.chunk_with("last", |chunk, _| {
                let output = chunk.touched.iter_mut().find(|touched| touched.before.is_live()).unwrap();
                output.before = Fate::Live { created_at: Sequence::new(1) };
                let consumer = chunk.entries.iter_mut().flat_map(|entry| &mut entry.observations);
                consumer.for_each(|observation| *observation = None);
            })
        }),
        lie("a wrong state after", PostState, &["last"], true, |scene| {
            scene.chunk_with("last", |chunk, entry| {
                let id = chunk.entries[entry].id();
                let own = chunk.touched.iter_mut().find(|touched| touched.origin.transaction == id).unwrap();
                own.after = Fate::Absent;
                liar::make_fit(chunk);
            })
        }),
        lie("an output that nobody names changed", PostState, &[], true, |scene| {
            scene.chunk_with("last", |chunk, _| {
                let (origin, contract) = output(&scene.names["settlement"], 0);
                let before = Fate::Live { created_at: Sequence::new(13) };
                let touched =
                    checker::Touched { id: origin.output_id(&contract), origin, contract, before, after: Fate::Absent };
                chunk.touched.push(touched);
                liar::make_fit(chunk);
            })
        }),
        lie("a created output left out", Completeness, &["last"], true, |scene| {
            scene.chunk_with("last", |chunk, entry| {
                let id = chunk.entries[entry].id();
                chunk.touched.retain(|touched| touched.origin.transaction != id);
                liar::make_fit(chunk);
            })
        }),
        lie("half a group", Group, &["whole two"], true, |scene| {
            scene.lie("whole one", |told, line| drop(told.lines.remove(line)))
        }),
        lie("half of a group committed", outcome, &["failed one"], true, |scene| scene.committed("failed one")),
        lie("a group blamed on the wrong member", Group, &["failed one"], true, |scene| {
            let (output, winner) = (scene.output("chained", 0), scene.id("whole one"));
            scene.lie("failed one", |told, line| {
                let reason = Rejection::InputSpent { input: 0, output, winner };
                let others = Rejection::GroupMemberRejected { member: 0, code: 206 };
                told.lines[line].record.outcome = Outcome::Rejected(reason);
                told.lines[line + 1].record.outcome = Outcome::Rejected(others);
            })
        }),
        lie("a group member's reason with another number", outcome, &["failed one"], true, |scene| {
            scene.rejected("failed one", Rejection::GroupMemberRejected { member: 1, code: 205 })
        }),
        lie("a group said to be barred that was not", Group, &["failed one"], true, |scene| {
            scene.lie("failed one", |told, line| {
                let barred = Outcome::Rejected(Rejection::GroupMemberSequenced { member: 0 });
                told.lines[line].record.outcome = barred.clone();
                told.lines[line + 1].record.outcome = barred;
            })
        }),
        lie("evidence of another ledger", Composition, &[], true, |scene| {
            let mut chunks = scene.honest();
            chunks[2].cluster = ClusterId::of_name("another");
            chunks
        }),
    ]
}

/// The same chunks, collected with other sizes: a helper for those who look at one batch.
pub(crate) fn batch_chunks(scene: &Scene, batch: usize) -> Vec<Chunk> {
    let (_, replay) = fixture::chunks(&scene.testimonies[..batch], 6);
    collect::chunks(&scene.testimonies[batch], &replay)
}
