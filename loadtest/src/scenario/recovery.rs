//! `storm --recover`: all clients are cut at once and come back while publications go on, some times over. Each asks
//! from where it was: does it get all that it missed, once, and in order?

use anyhow::{Result, bail};

use super::{
    delivery::{self, Feed},
    stage::Stage,
    storm,
};
use crate::{
    arguments::StormArguments,
    composer::Composer,
    dialect::Dialect,
    link::Reading,
    pace::Pace,
    producer::{self, Addressees},
    report::Report,
    stream::Positions,
    target::{self, Target},
};

/// Seconds of publications before the first cut, and between a return and the next cut.
const CALM_SECONDS: f64 = 1.0;

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 128;

/// Runs the scenario; the report has what was found even if it fails half-way.
///
/// # Errors
/// If something went wrong that ends the measurement.
pub fn run(arguments: &StormArguments, target: &Target, report: &mut Report) -> Result<()> {
    let common = &arguments.common;
    let Dialect::Centrifuge { identity, channels, .. } = target::dialect(common) else {
        bail!("--recover is for clients that speak the Centrifuge protocol: leave --connect-text and the like out")
    };
    let dialect = Dialect::Centrifuge { identity, channels, recovers: true };
    let addressees = Addressees::Channels(target::channel_names(common));
    let mut producer =
        producer::connect(common, &arguments.producer, addressees, Composer::Filler { bytes: PAYLOAD_BYTES })?;
    let stage = Stage::speaking(target, common, &dialect, Reading::default())?;
    let mut points = Vec::new();
    let result = stage.play(&mut points, |stage| {
        let setup = stage.open("opening clients", true, &Positions::default())?;
        storm::record_setup("opening clients", &setup, stage, common, report);
        stage.fleet.mark(&mut stage.watch)?;
        let pace = Pace::until_stopped(arguments.rate);
        let mut feeds = [Feed { source: &mut *producer, warmup: pace, pace }];
        let subscribers = storm::subscribers(common);
        let pushed = delivery::push_while(
            stage,
            &mut feeds,
            &subscribers,
            |feed| feed.pace,
            |stage, _| play_storms(arguments, stage, report),
        )?;
        let findings = stage.fleet.collect(&delivery::positions(&feeds), &mut stage.watch)?;
        report.set_server("publications meanwhile", "", pushed.publications as f64);
        report.set_server("messages delivered", "", findings.received as f64);
        report.set_server("of them recovered", "", findings.recovered as f64);
        report.add_faults("server", &findings.faults);
        Ok(())
    });
    report.points = points;
    result
}

fn play_storms(arguments: &StormArguments, stage: &mut Stage, report: &mut Report) -> Result<()> {
    stage.wait(CALM_SECONDS)?;
    for round in 1..=arguments.rounds {
        stage.fleet.close(&mut stage.watch)?;
        stage.watch.show_time("clients are away", arguments.away_seconds);
        stage.wait(arguments.away_seconds)?;
        let what = format!("storm {round}");
        let setup = stage.reopen(&what)?;
        storm::record_setup(&what, &setup, stage, &arguments.common, report);
        stage.wait(CALM_SECONDS)?;
    }
    Ok(())
}
