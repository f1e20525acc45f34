//! What the server API counts: calls by method and by how they ended, their time, and requests that were no call.
//!
//! Handlers count, `/metrics` reads. A call whose asker has gone before its end is counted nowhere.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{Failure, call::Method};

/// Why a request was no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// A browser sent it for a web page, and no key is asked for.
    ForeignPage,
    /// It showed no key, or a wrong one.
    Unauthorized,
    /// It was not POST.
    NotPost,
    /// There is no such method.
    UnknownMethod,
    /// Its body is longer than it may be, or broke off.
    BodyMissing,
    /// Its body is no JSON, or not of the form that the method has.
    Unreadable,
}

impl Rejection {
    /// All of them: `ALL[rejection as usize] == rejection`.
    pub const ALL: [Self; 6] = [
        Self::ForeignPage,
        Self::Unauthorized,
        Self::NotPost,
        Self::UnknownMethod,
        Self::BodyMissing,
        Self::Unreadable,
    ];

    /// Its label in the metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ForeignPage => "foreign_page",
            Self::Unauthorized => "unauthorized",
            Self::NotPost => "not_post",
            Self::UnknownMethod => "unknown_method",
            Self::BodyMissing => "body_missing",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Counts since the server's start.
#[derive(Debug, Default)]
pub struct Counters {
    methods: [MethodCounters; Method::ALL.len()],
    rejections: [AtomicU64; Rejection::ALL.len()],
}

#[derive(Debug, Default)]
struct MethodCounters {
    results: AtomicU64,
    /// In the order of [`Failure::ALL`].
    failures: [AtomicU64; Failure::ALL.len()],
    nanoseconds: AtomicU64,
}

/// What has been counted of one method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodFigures {
    /// Its name.
    pub method: &'static str,
    /// Calls by how they ended; all ends that there are.
    pub ended: Vec<(&'static str, u64)>,
    /// From the moment when a call was read to its end, of all of them.
    pub time: Duration,
}

/// What has been counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiFigures {
    /// By method.
    pub methods: Vec<MethodFigures>,
    /// Requests that were no call, by reason.
    pub rejections: Vec<(&'static str, u64)>,
}

impl Counters {
    /// A call has ended.
    pub fn ended(&self, method: Method, failure: Option<Failure>, took: Duration) {
        let counters = &self.methods[method as usize];
        match failure.map(Failure::position) {
            None => counters.results.fetch_add(1, Relaxed),
            Some(failure) => counters.failures[failure].fetch_add(1, Relaxed),
        };
        counters.nanoseconds.fetch_add(took.as_nanos() as u64, Relaxed);
    }

    /// A request was no call.
    pub fn rejected(&self, rejection: Rejection) {
        self.rejections[rejection as usize].fetch_add(1, Relaxed);
    }

    /// For the metrics.
    pub fn figures(&self) -> ApiFigures {
        let methods = Method::ALL.into_iter().zip(&self.methods).map(|(method, counters)| {
            let failures = Failure::ALL.iter().map(|failure| failure.label());
            let failures = failures.zip(counters.failures.iter().map(|count| count.load(Relaxed)));
            MethodFigures {
                method: method.name(),
                ended: [("result", counters.results.load(Relaxed))].into_iter().chain(failures).collect(),
                time: Duration::from_nanos(counters.nanoseconds.load(Relaxed)),
            }
        });
        let rejections = Rejection::ALL.into_iter().map(Rejection::label);
        let rejected = self.rejections.iter().map(|count| count.load(Relaxed));
        ApiFigures { methods: methods.collect(), rejections: rejections.zip(rejected).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_counted_in_its_place() {
        let counters = Counters::default();
        counters.ended(Method::Publish, None, Duration::from_millis(2));
        counters.ended(Method::Publish, Some(Failure::UNKNOWN_CHANNEL), Duration::from_millis(1));
        for (index, rejection) in Rejection::ALL.into_iter().enumerate() {
            assert_eq!(rejection as usize, index);
            (0..=index).for_each(|_| counters.rejected(rejection));
        }
        let figures = counters.figures();
        for (index, (method, of_method)) in Method::ALL.into_iter().zip(&figures.methods).enumerate() {
            assert_eq!((method as usize, method.name()), (index, of_method.method));
            let counted: Vec<_> = of_method.ended.iter().filter(|(_, count)| *count > 0).collect();
            if method == Method::Publish {
                assert_eq!(counted, [&("result", 1), &("unknown_channel", 1)]);
                assert_eq!(of_method.time, Duration::from_millis(3));
            } else {
                assert_eq!((counted, of_method.time), (Vec::new(), Duration::ZERO));
            }
        }
        let counts: Vec<u64> = figures.rejections.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn every_failure_has_a_place_and_a_label_of_its_own() {
        for (index, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure.position(), index);
            let same = Failure::ALL.iter().filter(|other| other.label() == failure.label());
            assert_eq!(same.count(), 1, "{failure:?}");
        }
    }
}
