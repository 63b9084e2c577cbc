//! Calls, whose tickets may have to wait until it is known whether somebody spoke.

use super::{Desk, from, ticket_of};
use crate::change::{Call, CallState, Change, MessageChange};
use crate::context::Changes;
use crate::event::{Body, Event, Message};
use crate::evidence::Evidence;

const ANSWERED_IS_NO_WORK: &str = r#"[{ "name": "answered",
    "when": { "field": "missed", "operator": "is", "value": false }, "then": { "kind": "none" } }]"#;

impl Desk {
    /// The n-th event of a call.
    fn called(&mut self, sid: &str, n: u32, state: CallState, missed: Option<bool>) -> Changes {
        let call = Call {
            state: Some(state),
            missed,
            ..Call::default()
        };
        let told = MessageChange {
            external_id: sid.to_owned(),
            change: Change::Called(call),
        };
        let event = self.event("bot", &format!("{sid}/{n}"), from("anna@example.com", true));
        self.receive(&Event {
            id: format!("evt_{sid}_{n}"),
            body: Body::MessageChanged(Box::new(told)),
            ..event
        })
    }

    /// The message that the call is.
    fn rings(&mut self, sid: &str) -> Changes {
        let message = Message {
            external_ids: vec![sid.to_owned()],
            evidence: Evidence {
                thread: Some("anna".to_owned()),
                ..Evidence::default()
            },
            ..from("anna@example.com", true)
        };
        self.receive(&self.event("bot", sid, message))
    }
}

fn has_ticket(changes: &Changes) -> bool {
    ticket_of(changes).is_some()
}

#[test]
fn a_rule_hears_whether_a_call_was_missed() {
    let mut desk = Desk::new(serde_json::from_str(ANSWERED_IS_NO_WORK).unwrap());
    desk.called("CA1", 1, CallState::Ringing, None);
    let rang = desk.rings("CA1");
    assert!(!has_ticket(&rang) && rang.traces.is_empty(), "{rang:?}");
    assert_eq!(rang.messages.len(), 1);
    let answered = desk.called("CA1", 2, CallState::Completed, Some(false));
    assert!(!has_ticket(&answered), "{answered:?}");
    assert_eq!(answered.traces[0].facts["missed"], false);
    assert!(desk.called("CA1", 2, CallState::Completed, Some(false)).is_empty());

    desk.called("CA2", 1, CallState::Ringing, None);
    assert!(!has_ticket(&desk.rings("CA2")));
    let missed = desk.called("CA2", 2, CallState::NoAnswer, Some(true));
    let (ticket_id, ticket) = ticket_of(&missed).unwrap();
    assert_eq!(ticket.number, "CS0000001");
    assert_eq!(missed.traces[0].facts["missed"], true);
    let conversation = &missed.conversations.values().next().unwrap().row;
    assert_eq!(conversation.ticket_id.as_ref(), Some(ticket_id));
    // What is told afterwards opens nothing.
    assert!(!has_ticket(&desk.called("CA2", 3, CallState::Completed, Some(true))));

    // The caller has a ticket now: the next call joins it when it rings.
    desk.called("CA3", 1, CallState::Ringing, None);
    assert!(has_ticket(&desk.rings("CA3")));
    assert!(!has_ticket(&desk.called("CA3", 2, CallState::Completed, Some(false))));
}

#[test]
fn nothing_waits_where_all_is_known_or_nobody_asks() {
    let check = |rules: &str, missed: Option<bool>, is_first: bool| {
        let mut desk = Desk::new(serde_json::from_str(rules).unwrap());
        let before = is_first.then(|| desk.called("CA1", 1, CallState::Ringing, missed));
        let rang = desk.rings("CA1");
        assert!(has_ticket(&rang), "{rules} {missed:?} {before:?}");
        if !is_first {
            assert!(!has_ticket(&desk.called("CA1", 1, CallState::Ringing, missed)));
        }
        assert!(!has_ticket(&desk.called("CA1", 2, CallState::Completed, Some(true))));
    };
    check("[]", None, true);
    check("[]", Some(true), true);
    check(ANSWERED_IS_NO_WORK, Some(true), true);
    // Its message came before anything was known of it.
    check(ANSWERED_IS_NO_WORK, None, false);
    check(ANSWERED_IS_NO_WORK, Some(true), false);
}
