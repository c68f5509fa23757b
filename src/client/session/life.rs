//! [`Life`]: the future of a session, from its welcome to its end. Between two requests it is the
//! session and nothing else; what a request needs while it is served lies in a [`Workplace`], which
//! the worker's sessions take in turns.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::client::session::front::Request;
use crate::client::session::{End, Patience, Session};
use crate::wire::frame::Header;

/// What a session has to do.
#[derive(Debug)]
pub(super) enum Job {
    Welcome,
    /// The life of a request, or of all requests up to the end of their transaction.
    Serve(Request),
    /// A message that the gate answers for a service's session.
    Act(Header),
    Close(End),
}

/// The session that goes on, or how it ended.
type Done = Result<Box<Session>, End>;

/// A session's future. As small as it can be: every idle session has one.
#[derive(Debug)]
pub enum Life {
    Idle(Box<Session>),
    AtWork(Workplace),
    Over,
}

impl Life {
    pub(super) fn begin(session: Box<Session>) -> Self {
        Self::at_work(session, Job::Welcome)
    }

    fn at_work(session: Box<Session>, job: Job) -> Self {
        let mut workplace = session.talk.env.workplaces.take();
        workplace.0.0.begin(session, job);
        Self::AtWork(workplace)
    }
}

impl Future for Life {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            *self = match std::mem::replace(&mut *self, Self::Over) {
                Self::Idle(mut session) => match session.poll_job(cx) {
                    Poll::Ready(job) => Self::at_work(session, job),
                    Poll::Pending => {
                        *self = Self::Idle(session);
                        return Poll::Pending;
                    }
                },
                Self::AtWork(mut workplace) => match workplace.0.0.poll(cx) {
                    Poll::Ready(Ok(session)) => {
                        session.talk.env.workplaces.put_back(workplace);
                        Self::Idle(session)
                    }
                    Poll::Ready(Err(end)) => return Poll::Ready(end),
                    Poll::Pending => {
                        *self = Self::AtWork(workplace);
                        return Poll::Pending;
                    }
                },
                Self::Over => return Poll::Pending,
            }
        }
    }
}

/// Does a session's job. What is rare is boxed, so that a workplace stays small.
async fn work(mut session: Box<Session>, job: Job) -> Done {
    let done = match job {
        Job::Welcome => Box::pin(session.welcome()).await.map_err(End::Told),
        Job::Serve(mut request) => session.serve(&mut request).await,
        Job::Act(header) => {
            session.talk.patience = Patience::default();
            Box::pin(session.act(header)).await;
            Ok(())
        }
        Job::Close(end) => Err(end),
    };
    session.stalled_since = None;
    match done {
        Ok(()) => Ok(session),
        Err(end) => Err(Box::pin(session.close(end)).await),
    }
}

/// Where a session's job is done.
pub struct Workplace(Box<Running>);

/// A future in a place that can be used again: a request costs no allocation.
struct Running(Box<dyn Repeat>);

trait Repeat {
    fn begin(&mut self, session: Box<Session>, job: Job);
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Done>;
}

struct Place<F> {
    work: fn(Box<Session>, Job) -> F,
    running: Pin<Box<Option<F>>>,
}

impl<F: Future<Output = Done>> Repeat for Place<F> {
    fn begin(&mut self, session: Box<Session>, job: Job) {
        self.running.set(Some((self.work)(session, job)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        let Some(running) = self.running.as_mut().as_pin_mut() else { return Poll::Pending };
        running.poll(cx)
    }
}

impl fmt::Debug for Workplace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Workplace")
    }
}

/// Workplaces of a worker at which no session works.
#[derive(Debug, Default)]
pub struct Workplaces(RefCell<Vec<Workplace>>);

/// Most workplaces kept for reuse.
const KEPT_MAX: usize = 64;

impl Workplaces {
    fn take(&self) -> Workplace {
        let kept = self.0.borrow_mut().pop();
        kept.unwrap_or_else(|| {
            let place = Place { work, running: Box::pin(None) };
            Workplace(Box::new(Running(Box::new(place))))
        })
    }

    /// Takes one back whose job is done: a future that has returned holds nothing any more.
    fn put_back(&self, workplace: Workplace) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(workplace);
        }
    }
}
