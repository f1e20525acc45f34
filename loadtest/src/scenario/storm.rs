//! `storm`: all clients are cut at once and all come back as fast as they can, some times over. How
//! long until all are subscribed again, at what cost, and does a publication reach everybody then?

use anyhow::Result;

use super::{
    delivery::{self, Feed},
    recovery,
    stage::{Setup, Stage},
};
use crate::{
    arguments::{CommonArguments, StormArguments},
    composer::Composer,
    link::Reading,
    pace::Pace,
    proc::user_memory,
    producer::{self, Addressees},
    report::Report,
    sequence::Faults,
    stream::{Positions, Stream},
    target::{self, Target},
};

/// Runs the scenario; the report has what was found even if it fails half-way.
///
/// # Errors
/// If something went wrong that ends the measurement.
pub fn run(arguments: &StormArguments, target: &Target, report: &mut Report) -> Result<()> {
    if arguments.recover {
        return recovery::run(arguments, target, report);
    }
    let common = &arguments.common;
    let names = target::channel_names(common);
    // One publication to each channel: each client has to receive one.
    let check = Pace { rate: 100.0, burst: 1, instants: u64::from(common.channels) };
    let composer = Composer::Filler { bytes: 128 };
    let mut producer = producer::connect(common, &arguments.producer, Addressees::Channels(names), composer)?;
    let receivers = subscribers(common);
    let stage = Stage::server(target, common, Reading::default())?;
    let mut points = Vec::new();
    let result = stage.play(&mut points, |stage| {
        let mut faults = Faults::default();
        let mut positions = Positions::default();
        for round in 0..=arguments.rounds {
            let what = if round == 0 { "opening clients".to_owned() } else { format!("storm {round}") };
            let setup = stage.open(&what, true, &positions)?;
            record_setup(&what, &setup, stage, common, report);
            let mut feeds = [Feed { source: &mut *producer, warmup: check, pace: check }];
            let delivery = delivery::measure_warm(stage, &mut feeds, &receivers, "checking")?;
            faults.add(&delivery.findings.faults);
            if let Some(failure) = delivery.failure {
                return Err(failure);
            }
            positions = delivery::positions(&feeds);
            if round < arguments.rounds {
                stage.fleet.close(&mut stage.watch)?;
            }
        }
        report.add_faults("server", &faults);
        Ok(())
    });
    report.points = points;
    result
}

/// What it took until all clients were subscribed.
pub fn record_setup(what: &str, setup: &Setup, stage: &Stage, common: &CommonArguments, report: &mut Report) {
    let clients = f64::from(stage.fleet.clients());
    report.add_distribution(&format!("{what}: subscribed after"), setup.durations);
    report.set_server(&format!("{what}: until all are subscribed"), "s", setup.seconds);
    report.set_server(&format!("{what}: clients per second"), "1/s", clients / setup.seconds);
    if let Some(cpu_us) = setup.cpu_us {
        report.set_server(&format!("{what}: CPU per client"), "us", cpu_us / clients);
    }
    if common.tls.tls_resume {
        report.set_server(&format!("{what}: TLS sessions resumed"), "", setup.resumed as f64);
    }
    if let Some(resident) = stage.pid.and_then(user_memory::resident_bytes) {
        report.set_server(&format!("{what}: resident memory"), "MiB", resident as f64 / f64::from(1 << 20));
    }
}

/// How many clients each stream has.
pub fn subscribers(common: &CommonArguments) -> impl Fn(Stream) -> u64 + use<> {
    let common = common.clone();
    move |stream| match stream {
        Stream::Channel(channel) => common.subscribers(channel),
        Stream::User(_) => 0,
    }
}
