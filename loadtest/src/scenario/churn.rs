//! `churn`: clients leave and come back all the time, while publications go on. What does a coming
//! and going cost, and does whoever is there receive everything?

use anyhow::Result;

use super::{
    delivery::{self, Feed},
    stage::Stage,
};
use crate::{
    arguments::ChurnArguments,
    link::Reading,
    pace::Pace,
    producer::{self, Addressees},
    report::Report,
    stream::Positions,
    target::{self, Target},
};

/// Runs the scenario; the report has what was found even if it fails half-way.
///
/// # Errors
/// If something went wrong that ends the measurement.
pub fn run(arguments: &ChurnArguments, target: &Target, report: &mut Report) -> Result<()> {
    let (common, publications) = (&arguments.common, &arguments.publications);
    let addressees = Addressees::Channels(target::channel_names(common));
    let composer = publications.composer();
    let mut producer = producer::connect(common, &publications.producer, addressees, composer)?;
    let stage = Stage::server(target, common, Reading::of(composer))?;
    let mut points = Vec::new();
    let result = stage.play(&mut points, |stage| {
        stage.open("opening clients", true, &Positions::default())?;
        let before = stage.cpu();
        stage.watch.show_time("coming and going", publications.seconds);
        stage.fleet.churn(arguments.churn_rate)?;
        stage.wait(publications.seconds)?;
        let churned = stage.fleet.churned() as f64;
        report.set_server("clients that left and came back", "", churned);
        report.set_server("of them per second", "1/s", churned / publications.seconds);
        if let Some(cpu_us) = stage.cpu_us_since(before.as_ref()).filter(|_| churned > 0.0) {
            report.set_server("CPU per leaving and coming back", "us", cpu_us / churned);
        }
        let pace = |seconds| Pace::of_seconds(publications.rate, publications.burst, seconds);
        let (warmup, pace) = (pace(publications.warmup_seconds), pace(publications.seconds));
        let mut feeds = [Feed { source: &mut *producer, warmup, pace }];
        // Nobody knows how many are there at each moment: that each misses nothing is what counts.
        let delivery = delivery::measure(stage, &mut feeds, &|_| 0)?;
        stage.fleet.churn(0.0)?;
        report.set_server("messages delivered meanwhile", "", delivery.findings.received as f64);
        report.add_distribution("server: subscribed after", delivery.findings.setup);
        report.add_distribution("server: every message", delivery.findings.latency);
        report.threads = delivery.threads;
        report.add_faults("server", &delivery.findings.faults);
        delivery.failure.map_or(Ok(()), Err)
    });
    report.points = points;
    result
}
