//! `ramp`: the highest rate at which a latency limit is kept. The rate grows by steps until the
//! limit is broken, then the gap is halved some times. A rate at which the server ends clients
//! as too slow ends the search.

use anyhow::Result;

use super::{
    delivery::{self, Delivery, Feed},
    stage::Stage,
};
use crate::{
    arguments::RampArguments,
    link::Reading,
    pace::Pace,
    producer::{self, Addressees},
    report::Report,
    stream::{Positions, Stream},
    target::{self, Target},
};

/// How much the rate grows from step to step.
const GROWTH: f64 = 1.5;

/// How often the gap is halved: the result is known to some 3 %.
const HALVINGS: u32 = 4;

/// Where a search is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Search {
    /// The highest rate that kept the limit.
    kept: Option<f64>,
    /// The lowest that broke it.
    broken: Option<f64>,
    halvings: u32,
}

impl Search {
    fn next_rate(&self, first: f64) -> Option<f64> {
        match (self.kept, self.broken) {
            (None, None) => Some(first),
            (Some(kept), None) => Some(kept * GROWTH),
            (None, Some(broken)) => (self.halvings < HALVINGS).then_some(broken / 2.0),
            (Some(kept), Some(broken)) => (self.halvings < HALVINGS).then_some((kept + broken) / 2.0),
        }
    }

    fn record(&mut self, rate: f64, is_kept: bool) {
        self.halvings += u32::from(self.broken.is_some());
        *(if is_kept { &mut self.kept } else { &mut self.broken }) = Some(rate);
    }
}

/// Runs the scenario; the report has what was found even if it fails half-way.
///
/// # Errors
/// If something went wrong that ends the measurement.
pub fn run(arguments: &RampArguments, target: &Target, report: &mut Report) -> Result<()> {
    let (common, publications) = (&arguments.common, &arguments.publications);
    let addressees = Addressees::Channels(target::channel_names(common));
    let composer = publications.composer();
    let mut producer = producer::connect(common, &publications.producer, addressees, composer)?;
    let receivers = |stream| match stream {
        Stream::Channel(channel) => common.subscribers(channel),
        Stream::User(_) => 0,
    };
    let stage = Stage::server(target, common, Reading::of(composer))?;
    let mut points = Vec::new();
    let result = stage.play(&mut points, |stage| {
        stage.open("opening clients", true, &Positions::default())?;
        let mut search = Search { kept: None, broken: None, halvings: 0 };
        let mut tried_again: Option<f64> = None;
        while let Some(rate) = search.next_rate(publications.rate) {
            let pace = |seconds| Pace::of_seconds(rate, publications.burst, seconds);
            let (warmup, pace) = (pace(publications.warmup_seconds), pace(publications.seconds));
            let mut feeds = [Feed { source: &mut *producer, warmup, pace }];
            let measured = delivery::measure(stage, &mut feeds, &receivers);
            if search.kept.is_some() && has_overloaded(stage, &measured) {
                // Without these clients nothing more can be told of the rates between.
                let ended = stage.fleet.dropped();
                report.set_server(&format!("clients ended by the server at {rate:.1} per second"), "", ended.into());
                stage.fleet.collect_remains(&mut stage.watch)?;
                break;
            }
            let delivery = measured?;
            let latency = delivery.findings.latency;
            let is_kept = latency.is_some_and(|latency| latency.p99_us <= arguments.latency_ms_max * 1000);
            report.add_distribution(&format!("{rate:.1} instants per second"), latency);
            report.add_faults("server", &delivery.findings.faults);
            if let Some(failure) = delivery.failure {
                return Err(failure);
            }
            // A rate counts as too high only if it is so twice: other work on the machine delays too.
            if !is_kept && tried_again != Some(rate) {
                tried_again = Some(rate);
                continue;
            }
            search.record(rate, is_kept);
            if is_kept {
                record_best(rate, publications.burst, &delivery, pace.seconds(), report);
            }
        }
        anyhow::ensure!(search.kept.is_some(), "no rate keeps the limit; begin lower: --rate");
        Ok(())
    });
    report.points = points;
    result
}

/// Whether the server has ended clients because they were sent more than they could take. One that is gone itself has not.
fn has_overloaded(stage: &Stage, measured: &Result<Delivery>) -> bool {
    let has_failed = measured.as_ref().map_or(true, |delivery| delivery.failure.is_some());
    has_failed && stage.fleet.dropped() > 0 && (stage.pid.is_none() || stage.cpu().is_some())
}

fn record_best(rate: f64, burst: u32, delivery: &Delivery, seconds: f64, report: &mut Report) {
    report.set_server("highest rate within the limit, publications", "1/s", rate * f64::from(burst));
    report.set_server("messages delivered then", "1/s", delivery.findings.received as f64 / seconds);
    if let Some(cpu) = delivery.cpu_us_per_message() {
        report.set_server("CPU per delivered message then", "us", cpu);
    }
    report.threads.clone_from(&delivery.threads);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate that a search ends with, for a server that keeps the limit up to `capacity`.
    fn search(first: f64, capacity: f64) -> Option<f64> {
        let mut search = Search { kept: None, broken: None, halvings: 0 };
        let mut steps = 0;
        while let Some(rate) = search.next_rate(first) {
            search.record(rate, rate <= capacity);
            steps += 1;
            assert!(steps < 50, "the search does not end");
        }
        search.kept
    }

    #[test]
    fn the_search_ends_near_the_capacity() {
        for capacity in [10.0, 37.0, 130.0, 5_000.0] {
            let found = search(10.0, capacity).unwrap();
            assert!(found <= capacity && found > capacity * 0.95, "{found} of {capacity}");
        }
    }

    #[test]
    fn a_first_rate_that_is_too_high_is_halved() {
        assert!(search(100.0, 30.0).unwrap() <= 30.0);
        assert!(search(100.0, 30.0).unwrap() > 20.0);
        assert_eq!(search(100.0, 1.0), None);
    }
}
