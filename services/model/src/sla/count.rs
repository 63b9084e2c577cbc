//! How clocks count: what each event of a ticket does to them. Every function may
//! meet an event that lies before the one it met last; no time is counted twice and
//! none is negative.

use super::{Book, Clock, ClockState, Metric, Policy, PolicyReference};
use crate::calendar::BusinessTime;
use crate::ticket::Category;
use crate::ticket::priority::Priority;
use crate::time::Moment;

/// By what a ticket's clocks count.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    policy: &'a Policy,
    /// `None`: around the clock.
    calendar: Option<&'a BusinessTime>,
    priority: Priority,
}

impl Book {
    /// `None` without a policy, and if the book lacks the policy or its calendar:
    /// no clock is better than a wrong one.
    pub(crate) fn terms(&self, reference: Option<&PolicyReference>, priority: Priority) -> Option<Terms<'_>> {
        let reference = reference?;
        let policy = self.policies.get(&(reference.name.clone(), reference.version))?;
        let calendar = match &policy.calendar {
            Some(name) => Some(
                self.calendars
                    .get(&(name.clone(), reference.calendar_version))?
                    .as_ref(),
            ),
            None => None,
        };
        Some(Terms {
            policy,
            calendar,
            priority,
        })
    }
}

impl Terms<'_> {
    /// The ticket was opened.
    pub(crate) fn opened(self, clocks: &mut Vec<Clock>, at: Moment) {
        self.start(clocks, Metric::FirstResponse, at);
        self.start(clocks, Metric::Resolution, at);
    }

    /// A person wrote to us, and the first response is over.
    pub(crate) fn customer_waits(self, clocks: &mut Vec<Clock>, at: Moment) {
        let running = find(clocks, Metric::NextResponse).filter(|clock| clock.state == ClockState::Running);
        match running {
            // An older message was processed late: that one waits for longest.
            Some(clock) if at < clock.started_at => {
                clock.started_at = at;
                clock.since = at;
                self.schedule(clock);
            }
            Some(_) => {}
            None => self.start(clocks, Metric::NextResponse, at),
        }
    }

    /// A person of the desk answered. After a resolution it is what would have been
    /// owed had the ticket been reopened.
    pub(crate) fn replied(self, clocks: &mut [Clock], at: Moment) {
        for clock in clocks {
            if clock.metric != Metric::Resolution && clock.state != ClockState::Met {
                self.stop(clock, ClockState::Met, at);
            }
        }
    }

    /// The ticket came into a state of this category. A resolution makes answers
    /// needless; if the ticket is reopened, the one that nobody gave is owed again.
    pub(crate) fn moved(self, clocks: &mut [Clock], category: Category, at: Moment) {
        let is_pause = self.policy.pause_resolution_on.contains(&category);
        for clock in clocks {
            let is_resolution = clock.metric == Metric::Resolution;
            match category {
                Category::Resolved | Category::Closed if is_resolution => self.end(clock, ClockState::Met, at),
                Category::Resolved | Category::Closed | Category::Cancelled => {
                    self.end(clock, ClockState::Cancelled, at);
                }
                Category::Open | Category::WaitingOnCustomer | Category::WaitingInternally => {
                    if is_resolution && is_pause {
                        self.stop(clock, ClockState::Paused, at);
                    } else if is_resolution || clock.state == ClockState::Cancelled {
                        self.resume(clock, at);
                    }
                }
            }
        }
    }

    /// The ticket has another priority: as though it had had it from the start. What
    /// was missed under the old target and is in time under the new is not missed.
    pub(crate) fn prioritised(self, clocks: &mut [Clock], at: Moment) {
        for clock in clocks {
            if !is_going_on(clock) {
                continue;
            }
            clock.target_ms = self.target(clock.metric);
            let elapsed_ms = self.elapsed_ms(clock, at);
            let is_reached = |part_ms: Option<i64>| part_ms.is_some_and(|part_ms| elapsed_ms >= part_ms);
            if !is_reached(clock.target_ms) {
                clock.breached_at = None;
            }
            if !is_reached(self.warn_ms(clock)) {
                clock.warned_at = None;
            }
            self.schedule(clock);
        }
    }

    /// People were warned.
    pub(crate) fn warned(self, clocks: &mut [Clock], metric: Metric, at: Moment) {
        if let Some(clock) = find(clocks, metric) {
            clock.warned_at = Some(at);
            self.schedule(clock);
        }
    }

    /// It was missed.
    pub(crate) fn breached(self, clocks: &mut [Clock], metric: Metric, due_at: Moment) {
        if let Some(clock) = find(clocks, metric) {
            clock.breached_at = Some(due_at);
            self.schedule(clock);
        }
    }

    fn start(self, clocks: &mut Vec<Clock>, metric: Metric, at: Moment) {
        if self.policy.target(metric).is_none() {
            return;
        }
        let mut clock = Clock {
            metric,
            state: ClockState::Running,
            target_ms: self.target(metric),
            started_at: at,
            since: at,
            elapsed_ms: 0,
            due_at: None,
            next_at: None,
            warned_at: None,
            breached_at: None,
        };
        self.schedule(&mut clock);
        clocks.retain(|clock| clock.metric != metric);
        clocks.push(clock);
        clocks.sort_by_key(|clock| clock.metric);
    }

    fn resume(self, clock: &mut Clock, at: Moment) {
        if clock.state == ClockState::Running {
            return;
        }
        clock.state = ClockState::Running;
        clock.since = clock.since.max(at);
        self.schedule(clock);
    }

    fn end(self, clock: &mut Clock, state: ClockState, at: Moment) {
        if is_going_on(clock) {
            self.stop(clock, state, at);
        }
    }

    /// Counts what has passed, and stands still from then on. A due moment that has
    /// passed meanwhile was missed, even if no router has said so.
    fn stop(self, clock: &mut Clock, state: ClockState, at: Moment) {
        if clock.breached_at.is_none() && clock.due_at.is_some_and(|due_at| due_at < at) {
            clock.breached_at = clock.due_at;
        }
        clock.elapsed_ms = self.elapsed_ms(clock, at);
        clock.since = clock.since.max(at);
        clock.state = state;
        self.schedule(clock);
    }

    /// Finds anew when it is due and when a router must look at it.
    fn schedule(self, clock: &mut Clock) {
        clock.due_at = None;
        clock.next_at = None;
        if clock.state != ClockState::Running {
            return;
        }
        let (Some(target_ms), Some(warn_ms)) = (clock.target_ms, self.warn_ms(clock)) else {
            return;
        };
        let due_at = self.add(clock.since, target_ms - clock.elapsed_ms);
        clock.due_at = Some(due_at);
        clock.next_at = match (clock.breached_at, clock.warned_at) {
            (Some(_), _) => None,
            (None, Some(_)) => Some(due_at),
            (None, None) => Some(self.add(clock.since, warn_ms - clock.elapsed_ms)),
        };
    }

    fn target(self, metric: Metric) -> Option<i64> {
        self.policy.target(metric)?.at_ms(self.priority)
    }

    fn warn_ms(self, clock: &Clock) -> Option<i64> {
        Some(clock.target_ms? / 100 * i64::from(self.policy.warn_percent))
    }

    fn elapsed_ms(self, clock: &Clock, at: Moment) -> i64 {
        match clock.state {
            ClockState::Running => clock.elapsed_ms + self.between_ms(clock.since, at),
            ClockState::Paused | ClockState::Met | ClockState::Cancelled => clock.elapsed_ms,
        }
    }

    fn add(self, from: Moment, ms: i64) -> Moment {
        match self.calendar {
            Some(calendar) => calendar.add(from, ms),
            None => from.plus_ms(ms.max(0)),
        }
    }

    fn between_ms(self, from: Moment, to: Moment) -> i64 {
        match self.calendar {
            Some(calendar) => calendar.between_ms(from, to),
            None => to.since_ms(from).max(0),
        }
    }
}

fn is_going_on(clock: &Clock) -> bool {
    matches!(clock.state, ClockState::Running | ClockState::Paused)
}

fn find(clocks: &mut [Clock], metric: Metric) -> Option<&mut Clock> {
    clocks.iter_mut().find(|clock| clock.metric == metric)
}
