//! `/v1/tickets`: lists, one ticket, and what people do to it.

mod view;

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use model::context::Changes;
use model::id::{ContactId, MessageId, TicketId};
use model::ticket::kind::KINDS;
use model::ticket::priority::Level;
use model::ticket::{Actor, Category, Command, Resolution, Ticket, WaitingOn};
use serde::Deserialize;
use store::tickets::TicketFilter;
use utoipa::{IntoParams, ToSchema};

use crate::error::{BodyProblems, Error, Problem, Problems};
use crate::extract::{Body, IdempotencyKey, Path, Query};
use crate::messages::MessageView;
use crate::once::{self, Answer, Named};
use crate::page::{self, Page, Paging};
use crate::token::Person;
use crate::{ATTEMPTS, Desk, contacts, now};
use view::{TicketDetail, TicketView};

/// What people do to a ticket, in the order of a ticket's life.
const VERBS: [&str; 7] = ["assign", "prioritise", "hold", "resolve", "reopen", "close", "cancel"];

/// What a list of tickets is narrowed by.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// `case` or `incident`.
    kind: Option<String>,
    queue: Option<String>,
    /// What states have in common across kinds: `open`, `waiting_on_customer`, `waiting_internally`,
    /// `resolved`, `closed` or `cancelled`.
    category: Option<String>,
    /// A state that the ticket's kind declares.
    state: Option<String>,
    /// Name of a person.
    assignee: Option<String>,
    /// Id of a contact: also those of all contacts that are the same person.
    contact: Option<String>,
    /// `true`: only those that need a person's eyes; `false`: only the others.
    needs_attention: Option<bool>,
    /// How many items at most: 1 to 200, 50 if not given.
    limit: Option<i64>,
    /// `next` of the page before.
    after: Option<String>,
}

/// `assign`: to a person, or with null to nobody.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Assign {
    #[serde(deserialize_with = "Option::deserialize")]
    assignee: Option<String>,
}

/// `prioritise`: the priority follows from both.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Prioritise {
    /// `high`, `medium` or `low`.
    #[schema(value_type = String, example = "high", pattern = "^(high|medium|low)$")]
    impact: Level,
    /// `high`, `medium` or `low`.
    #[schema(value_type = String, example = "high", pattern = "^(high|medium|low)$")]
    urgency: Level,
}

/// `hold`: for whom it waits.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Hold {
    #[schema(value_type = String, example = "customer", pattern = "^(customer|internal)$")]
    waiting_on: WaitingOn,
}

/// `resolve`: with one of the kind's resolution codes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Resolve {
    code: String,
    #[serde(default)]
    notes: Option<String>,
}

/// `reopen` and `cancel`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `close`: with a resolution code, if it was not resolved before.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Close {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    notes: Option<String>,
}

/// The body that each verb takes.
#[derive(ToSchema)]
#[schema(as = TicketAction)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the bodies; each verb reads its own")]
enum Action {
    Assign(Assign),
    Prioritise(Prioritise),
    Hold(Hold),
    Resolve(Resolve),
    Nothing(Nothing),
    Close(Close),
}

/// Tickets, the newest first.
#[utoipa::path(get, path = "/v1/tickets", operation_id = "list_tickets", tag = "tickets", params(Filter),
    responses((status = 200, description = "A page of tickets", body = Page<TicketView>), Problems))]
pub async fn list(State(desk): State<Desk>, Query(filter): Query<Filter>) -> Result<Json<Page<TicketView>>, Error> {
    let limit = page::limit(filter.limit)?;
    let before = page::position(filter.after.as_deref(), |text| {
        page::moment_and_id(text, TicketId::parse)
    })?;
    let filter = checked(filter)?;
    let mut tickets = desk.store.list_tickets(&filter, before, limit + 1).await?;
    contacts::resolve(&desk, tickets.iter_mut().map(|ticket| &mut ticket.contact_id)).await?;
    let page = page::page(tickets, limit, |ticket| {
        format!("{}:{}", ticket.opened_at.as_ms(), ticket.id)
    });
    let now = now();
    Ok(Json(page.map(|ticket| TicketView::of(ticket, now))))
}

/// One ticket with its clocks, conversations, events, and the traces of the decisions about it.
#[utoipa::path(get, path = "/v1/tickets/{number}", operation_id = "show_ticket", tag = "tickets",
    params(("number" = String, Path, description = "`CS0000001`")),
    responses((status = 200, description = "The ticket", body = TicketDetail), Problems))]
pub async fn show(State(desk): State<Desk>, Path(number): Path<String>) -> Result<Json<TicketDetail>, Error> {
    let ticket = load(&desk, &number).await?;
    let traces = desk.store.ticket_traces(&ticket.id).await?;
    let mut detail = detail(&desk, ticket).await?;
    detail.traces = Some(traces.into_iter().map(Into::into).collect());
    Ok(Json(detail))
}

/// The messages and notes of all conversations of a ticket, in their order.
#[utoipa::path(get, path = "/v1/tickets/{number}/messages", operation_id = "list_ticket_messages", tag = "tickets",
    params(("number" = String, Path, description = "`CS0000001`"), Paging),
    responses((status = 200, description = "A page of messages", body = Page<MessageView>), Problems))]
pub async fn list_messages(
    State(desk): State<Desk>,
    Path(number): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<MessageView>>, Error> {
    let limit = page::limit(paging.limit)?;
    let after = page::position(paging.after.as_deref(), MessageId::parse)?;
    let ticket = load(&desk, &number).await?;
    let messages = desk
        .store
        .ticket_messages(&ticket.id, after.as_ref(), limit + 1)
        .await?;
    let page = page::page(messages, limit, |message| message.id.as_str().to_owned());
    Ok(Json(page.map(Into::into)))
}

/// Does something to a ticket: `assign`, `prioritise`, `hold`, `resolve`, `reopen`, `close` or `cancel`.
///
/// Answers the ticket as it stands afterwards, without traces. What changes nothing is no error.
#[utoipa::path(post, path = "/v1/tickets/{number}/{verb}", operation_id = "act_on_ticket", tag = "tickets",
    params(
        ("number" = String, Path, description = "`CS0000001`"),
        ("verb" = String, Path, description = "`assign`, `prioritise`, `hold`, `resolve`, `reopen`, `close` or `cancel`"),
        ("Idempotency-Key" = Option<String>, Header, description = once::KEY),
    ),
    request_body(content = Action, description = "What the verb takes"),
    responses(
        (status = 200, description = "The ticket afterwards", body = TicketDetail),
        (status = 409, description = "The ticket's state does not allow it", body = Problem),
        Problems,
        BodyProblems,
    ))]
pub async fn act(
    State(desk): State<Desk>,
    Extension(Person(person)): Extension<Person>,
    Path((number, verb)): Path<(String, String)>,
    key: IdempotencyKey,
    body: Body,
) -> Result<Response, Error> {
    let named = Named::read(person.clone(), key, &format!("{verb} {number}"), &body);
    let command = command(&verb, body)?;
    check_assignee(&desk, &command).await?;
    let actor = Actor::Person(person);
    for _ in 0..ATTEMPTS {
        if let Some(answer) = once::answered_before(&desk, named.as_ref()).await? {
            return Ok(answer);
        }
        let book = desk.store.book().await?;
        let ticket = load(&desk, &number).await?;
        let changes = Changes::of_command(&ticket, &command, &actor, now(), &book.sla)?;
        let answer = Answer::new(named.as_ref(), &after(&desk, ticket, &changes).await?)?;
        if let Some(answer) = answer.commit(&desk, &changes).await? {
            return Ok(answer);
        }
    }
    Err(Error::busy("others are changing this ticket at the same time"))
}

/// Values that no ticket can have are refused rather than found nowhere.
fn checked(filter: Filter) -> Result<TicketFilter, Error> {
    let bad = |detail: String| Error::bad_request("bad_parameter", detail);
    if let Some(kind) = &filter.kind
        && model::ticket::kind::find(kind).is_none()
    {
        let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        return Err(bad(format!("`kind` must be one of {}", kinds.join(", "))));
    }
    if let Some(category) = &filter.category
        && serde_json::from_value::<Category>(category.as_str().into()).is_err()
    {
        return Err(bad(
            "`category` must be one of open, waiting_on_customer, waiting_internally, resolved, closed, cancelled"
                .to_owned(),
        ));
    }
    if let Some(contact) = &filter.contact
        && ContactId::parse(contact).is_none()
    {
        return Err(bad("`contact` must be the id of a contact".to_owned()));
    }
    let texts = [&filter.queue, &filter.state, &filter.assignee];
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(bad("parameters must not contain U+0000".to_owned()));
    }
    Ok(TicketFilter {
        kind: filter.kind,
        queue: filter.queue,
        category: filter.category,
        state: filter.state,
        assignee: filter.assignee,
        contact_id: filter.contact,
        needs_attention: filter.needs_attention,
    })
}

fn command(verb: &str, body: Body) -> Result<Command, Error> {
    match verb {
        "assign" => body.read().map(|Assign { assignee }| Command::Assign { assignee }),
        "prioritise" => body
            .read()
            .map(|Prioritise { impact, urgency }| Command::Prioritise { impact, urgency }),
        "hold" => body.read().map(|Hold { waiting_on }| Command::Hold { waiting_on }),
        "resolve" => {
            let Resolve { code, notes } = body.read()?;
            let resolution = Resolution { code, notes };
            Ok(Command::Resolve { resolution })
        }
        "reopen" => body.read().map(|Nothing {}| Command::Reopen),
        "cancel" => body.read().map(|Nothing {}| Command::Cancel),
        "close" => close(body.read()?),
        _ => Err(Error::Refused {
            status: axum::http::StatusCode::NOT_FOUND,
            code: "unknown_verb",
            detail: format!("there is no such verb; there are {}", VERBS.join(", ")),
        }),
    }
}

fn close(close: Close) -> Result<Command, Error> {
    let resolution = match (close.code, close.notes) {
        (Some(code), notes) => Some(Resolution { code, notes }),
        (None, None) => None,
        (None, Some(_)) => return Err(Error::invalid("missing_field", "`notes` needs a `code`")),
    };
    Ok(Command::Close { resolution })
}

async fn check_assignee(desk: &Desk, command: &Command) -> Result<(), Error> {
    if let Command::Assign {
        assignee: Some(assignee),
    } = command
        && !desk.store.person_exists(assignee).await?
    {
        return Err(Error::invalid(
            "unknown_person",
            "there is no such person; `assignee` is a person's name or null",
        ));
    }
    Ok(())
}

async fn load(desk: &Desk, number: &str) -> Result<Ticket, Error> {
    let is_number = (1..=32).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let ticket = if is_number {
        desk.store.ticket(number).await?
    } else {
        None
    };
    ticket.ok_or_else(|| Error::not_found("ticket"))
}

/// The ticket with what is about to happen to it.
async fn after(desk: &Desk, ticket: Ticket, changes: &Changes) -> Result<TicketDetail, Error> {
    let row = changes.tickets.get(&ticket.id).map(|changed| changed.row.clone());
    let mut detail = detail(desk, row.unwrap_or(ticket)).await?;
    let events = changes.ticket_events.iter().map(|(_, event)| event.clone().into());
    detail.events.extend(events);
    Ok(detail)
}

async fn detail(desk: &Desk, mut ticket: Ticket) -> Result<TicketDetail, Error> {
    let contact_conversations = contacts::conversations(desk, &ticket.contact_id).await?;
    contacts::resolve(desk, std::iter::once(&mut ticket.contact_id)).await?;
    let conversations = desk.store.ticket_conversations(&ticket.id).await?;
    let events = desk.store.ticket_events(&ticket.id).await?;
    Ok(TicketDetail {
        ticket: TicketView::of(ticket, now()),
        conversations,
        contact_conversations,
        events: events.into_iter().map(Into::into).collect(),
        traces: None,
    })
}
