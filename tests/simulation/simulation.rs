//! One simulation: shards, clients and producers in one thread, and one seed that decides who acts when.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use crossbeam_channel::Receiver;
use tidegate::{
    channel::Random,
    config::{Config, DeltaType, Namespace, RecoveryMode, SlowConsumerPolicy},
    mesh::{self, Admission, Bell, ChannelHasher, ControlMesh, ToControl, ToShard, build_with_queue_length},
    session::Rules,
    shard::{Progress, Shard, ShardOptions},
    uring::{
        KernelTls,
        simulated::{Faults, SimulatedKernel, SimulatedNetwork},
    },
};

use crate::{
    client::{CHANNELS, Client, SECRET, World, has_members},
    ledger::{CLIENTS, HISTORY_SIZE, HISTORY_TTL_MS, Ledger},
    producers::Producers,
};

/// Fewer than there may be clients, so that some find no place.
const CONNECTIONS_MAX: u32 = 8;

/// What a run was like, for whoever wonders whether the seeds reach what they should.
#[derive(Debug, Default, Clone)]
pub struct Outline {
    /// Differs as soon as two runs differ.
    pub fingerprint: u64,
    /// What happened, and how often.
    pub events: BTreeMap<&'static str, u64>,
}

/// Runs a seed; panics if anything that a shard does breaks a promise.
pub fn run(seed: u64, trace: bool) -> Outline {
    let mut simulation = Simulation::new(seed, trace);
    simulation.play();
    simulation.come_to_rest();
    simulation.check_all_is_delivered();
    simulation.end_clients();
    simulation.check_nothing_is_left();
    simulation.outline()
}

struct Simulation {
    random: Random,
    network: SimulatedNetwork,
    shards: Vec<Member>,
    producers: Producers,
    control: ControlMesh,
    /// What counts, or will when every shard has heard of it.
    config: Arc<Config>,
    /// Shards that have yet to confirm the last reload.
    unconfirmed: usize,
    admission: Admission,
    clients: Vec<Client>,
    clients_max: usize,
    next_client: u32,
    users: Vec<String>,
    ledger: Ledger,
    events: BTreeMap<&'static str, u64>,
    steps: u64,
    jumps: bool,
    is_calm: bool,
    trace: bool,
}

/// A shard, and what tells whether it sleeps.
struct Member {
    shard: Option<Shard<SimulatedKernel>>,
    bell: Arc<Bell>,
    inbound: Vec<Receiver<ToShard>>,
    /// Its last wait found nothing, neither events nor messages.
    sleeps: bool,
}

impl Simulation {
    fn new(seed: u64, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let shards = 1 + random.below(3) as usize;
        let faults = faults(&mut random);
        let dice = Rc::new(RefCell::new(Random::new(random.next_u64())));
        let network = SimulatedNetwork::new(shards, faults, Box::new(move |bound| dice.borrow_mut().below(bound)));
        if trace {
            network.trace();
        }
        let queue_length = random.one_of(&[1, 2, 8, 1024]);
        let (meshes, ingest, control) = build_with_queue_length(shards, queue_length).expect("bells for a simulation");
        let config = Arc::new(config(&mut random));
        let mut key = [0; 16];
        key[..8].copy_from_slice(&random.next_u64().to_le_bytes());
        let hasher = ChannelHasher::with_key(key);
        let admission = Admission::new(config.client.connections_max);
        let shards = meshes
            .into_iter()
            .map(|mesh| {
                let (bell, inbound) = (Arc::clone(&mesh.bell), mesh.inbound.clone());
                let kernel = network.kernel(usize::from(mesh.shard));
                let options = ShardOptions {
                    kernel_tls: KernelTls::default(),
                    tls: None,
                    rules: Rules::new(Arc::clone(&config), b"operators come elsewhere", Vec::new()),
                    config: Arc::clone(&config),
                    hasher: hasher.clone(),
                    core: u32::from(mesh.shard),
                    mesh,
                    admission: admission.clone(),
                    client_id_key: key,
                    seed: random.next_u64(),
                };
                Member { shard: Some(Shard::new(kernel, options)), bell, inbound, sleeps: false }
            })
            .collect();
        Self {
            network,
            shards,
            producers: Producers::new(ingest, hasher),
            control,
            config,
            unconfirmed: 0,
            admission,
            clients: Vec::new(),
            clients_max: 2 + random.below(10) as usize,
            next_client: CLIENTS,
            users: (0..random.below(4)).map(|number| format!("user{number}")).collect(),
            ledger: Ledger::default(),
            events: BTreeMap::new(),
            steps: 400 + random.below(2_400),
            jumps: random.chance(1, 4),
            is_calm: false,
            trace,
            random,
        }
    }

    /// Anything may happen.
    fn play(&mut self) {
        for _ in 0..self.steps {
            match self.random.below(100) {
                0..36 => {
                    let shard = self.random.below(self.shards.len() as u64) as usize;
                    if !self.is_asleep(shard) || self.random.chance(1, 50) {
                        self.turn(shard);
                    }
                }
                36..50 => {
                    self.network.carry();
                }
                50..74 => self.step_client(),
                74..86 => {
                    let now_ms = self.network.now_ms();
                    self.producers.publish(&self.users, &mut self.ledger, &mut self.random, now_ms);
                }
                86..90 => {
                    self.producers.take_answers(1 + self.random.below(5), &mut self.ledger);
                }
                90..98 => self.network.pass(self.random.below(30)),
                98 if self.jumps && self.random.chance(1, 20) => {
                    self.network.pass(self.random.one_of(&[5_000, 60_000, 10 * 60_000, 30 * 3_600_000]));
                }
                98 if self.random.chance(1, 3) => self.reload(),
                98 => self.observe(),
                _ => self.begin_client(),
            }
            self.carry_bells();
        }
    }

    /// Nothing new happens, and everything that is under way comes to its end.
    fn come_to_rest(&mut self) {
        self.is_calm = true;
        self.network.calm();
        self.settle("the clients and producers to be served", |simulation| {
            simulation.producers.is_idle()
                && simulation.clients.iter().all(|client| client.is_gone || client.is_connected())
        });
        // Counts are told at times, and silent clients are found out by their pings.
        for _ in 0..60 {
            self.network.pass(200);
            self.settle("a moment to be over", |_| true);
        }
    }

    fn check_all_is_delivered(&mut self) {
        self.clients.retain(|client| !client.is_gone);
        for client in &self.clients {
            client.check_complete(&mut self.ledger);
        }
        let mut subscribers: BTreeMap<String, u32> = self.channels().map(|channel| (channel, 0)).collect();
        for channel in self.clients.iter().flat_map(|client| client.receptions.keys()) {
            *subscribers.get_mut(channel).expect("clients know no other channels") += 1;
        }
        self.check_members();
        self.producers.ask_counts(self.channels());
        self.settle("the home shards to count", |simulation| simulation.producers.is_idle());
        assert_eq!(self.producers.counts, subscribers, "home shards know the number of subscribers");
        let dropped: u64 = self.figures().flat_map(|figures| figures.dropped).map(|(_, count)| count).sum();
        assert!(self.ledger.unseen <= dropped, "{} were not seen, {dropped} were dropped", self.ledger.unseen);
    }

    /// Who is there is who is subscribed, to the server and to all that have heard who came and went.
    fn check_members(&mut self) {
        for index in 0..self.clients.len() {
            let (random, ledger) = (&mut self.random, &mut self.ledger);
            let mut world = World { network: &self.network, ledger, random, is_calm: true };
            self.clients[index].ask_presence(&mut world);
        }
        self.settle("the home shards to name those present", |simulation| {
            simulation.clients.iter().all(Client::is_answered)
        });
        for channel in CHANNELS.into_iter().filter(|channel| has_members(channel)) {
            let subscribed = self.clients.iter().filter(|client| client.receptions.contains_key(channel));
            let subscribed: BTreeSet<String> = subscribed.map(|client| client.id.clone()).collect();
            self.clients.iter().for_each(|client| client.check_members(channel, &subscribed));
        }
    }

    /// All clients leave, in whatever way, or the server stops.
    fn end_clients(&mut self) {
        let stops = self.random.chance(1, 2);
        if stops {
            self.stop();
        }
        while let Some(mut client) = self.clients.pop() {
            let (random, ledger) = (&mut self.random, &mut self.ledger);
            let mut world = World { network: &self.network, ledger, random, is_calm: true };
            // When the server stops, some stay and hear of it.
            match world.random.below(3) {
                0 => client.vanish(&mut world),
                1 => client.close(&mut world),
                _ if stops => {}
                _ => client.vanish(&mut world),
            }
            if !client.is_gone {
                self.clients.insert(0, client);
                if self.clients.iter().all(|client| !client.is_connected() || stops) && self.random.chance(1, 2) {
                    break;
                }
            }
            self.settle("a client's leaving", |_| true);
        }
        // Silent clients are found out by their pings, and have their time to close.
        for _ in 0..60 {
            self.network.pass(500);
            self.settle("clients to be gone", |_| true);
        }
        if !stops {
            assert_eq!(self.figures().map(|figures| figures.sockets).sum::<u64>(), 0, "a slot leaks");
        }
    }

    fn check_nothing_is_left(&mut self) {
        assert!(self.clients.iter().all(|client| client.is_gone), "every client has heard of its end");
        assert_eq!(self.network.sockets(), 0, "a socket leaks");
        for figures in self.figures() {
            let left = [
                figures.sockets,
                figures.connections,
                figures.channels,
                figures.subscriptions,
                figures.outboxes,
                figures.outbox_bytes,
                figures.members,
                figures.users,
            ];
            assert_eq!(left, [0; 8], "shard {} keeps something", figures.shard);
        }
        for place in 0..CONNECTIONS_MAX {
            assert_eq!(self.admission.enter(), Some(mesh::Place::Client), "only {place} of the places are free again");
        }
        assert_eq!(self.admission.enter(), Some(mesh::Place::Uplink), "a place was given back twice");
        if self.shards.iter().all(|member| member.shard.is_some()) {
            self.producers.ask_counts(self.channels());
            self.settle("the home shards to count", |simulation| simulation.producers.is_idle());
            assert!(self.producers.counts.values().all(|count| *count == 0), "{:?}", self.producers.counts);
            // After two months without anybody there is nothing that a shard would have to wake up for.
            for _ in 0..60 {
                self.network.pass(24 * 3_600_000);
                self.settle("time to pass", |_| true);
            }
            for shard in 0..self.shards.len() {
                assert_eq!(self.network.wakes_ms(shard), None, "shard {shard} keeps a timer, a count or a channel");
            }
            self.stop();
        }
        self.settle("the shards to stop", |simulation| simulation.shards.iter().all(|member| member.shard.is_none()));
    }

    fn outline(mut self) -> Outline {
        let Ledger { seen, unseen, patches, .. } = self.ledger;
        let clients = u64::from(self.next_client - CLIENTS);
        self.events.extend([("clients", clients), ("seen", seen), ("unseen", unseen), ("patches", patches)]);
        Outline { fingerprint: self.network.fingerprint(), events: self.events }
    }

    fn turn(&mut self, index: usize) {
        let member = &mut self.shards[index];
        let Some(shard) = &mut member.shard else { return };
        if shard.turn() == Progress::Stopped {
            let figures = shard.figures();
            let counters = [("turns", figures.turns), ("held", figures.mesh_held), ("pings", figures.pings)];
            for (name, count) in counters.into_iter().chain(figures.dropped).chain(figures.reasons) {
                *self.events.entry(name).or_default() += count;
            }
            member.shard = None;
            // Whoever still sends to it finds that nobody is there.
            member.inbound.clear();
            return;
        }
        member.sleeps = self.network.is_asleep(index) && member.inbound.iter().all(|queue| queue.is_empty());
        if member.sleeps {
            // The kernel's wait returned, since there is but one thread, though the shard should still sleep in it.
            member.bell.begin_sleep();
        }
    }

    fn is_asleep(&self, shard: usize) -> bool {
        self.shards[shard].sleeps && self.network.is_asleep(shard)
    }

    fn step_client(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let index = self.random.below(self.clients.len() as u64) as usize;
        let (random, ledger) = (&mut self.random, &mut self.ledger);
        let mut world = World { network: &self.network, ledger, random, is_calm: self.is_calm };
        self.clients[index].step(&mut world);
        if self.clients[index].is_gone {
            let left = self.clients.swap_remove(index).legacy();
            if self.random.chance(3, 4) {
                self.begin_client_with(left);
            }
        }
    }

    fn begin_client(&mut self) {
        self.begin_client_with(BTreeMap::new());
    }

    fn begin_client_with(&mut self, left: BTreeMap<String, crate::ledger::Place>) {
        if self.clients.len() >= self.clients_max || self.is_calm {
            return;
        }
        let user = match self.random.below(2) {
            0 if !self.users.is_empty() => {
                Some(self.users[self.random.below(self.users.len() as u64) as usize].clone())
            }
            _ => None,
        };
        let (number, shards, trace) = (self.next_client, self.shards.len(), self.trace);
        self.next_client += 1;
        let (random, ledger) = (&mut self.random, &mut self.ledger);
        let mut world = World { network: &self.network, ledger, random, is_calm: self.is_calm };
        let client = Client::new(number, shards, left, user, trace, &mut world);
        *self.events.entry(client.kind()).or_default() += 1;
        self.clients.push(client);
    }

    fn observe(&mut self) {
        let shard = self.random.below(self.shards.len() as u64) as usize;
        self.control.to_shards[shard].send(ToShard::Observe { ticket: 1, is_watched: true });
        self.take_reports();
    }

    /// Other rules for all shards, which hear of them one after the other, and change nothing that clients are promised.
    fn reload(&mut self) {
        if self.unconfirmed > 0 {
            return;
        }
        *self.events.entry("reloads").or_default() += 1;
        self.config = Arc::new(other_rules(&self.config, &mut self.random));
        self.unconfirmed = self.shards.len();
        for outlet in &mut self.control.to_shards {
            outlet.send(ToShard::Reconfigure { config: Arc::clone(&self.config), reload: 1 });
        }
        self.take_reports();
    }

    fn stop(&mut self) {
        let spread_ms = self.random.below(2_000) as u32;
        self.control.to_shards.iter_mut().for_each(|outlet| outlet.send(ToShard::Shutdown { spread_ms }));
        self.take_reports();
    }

    fn take_reports(&mut self) -> bool {
        let mut taken = false;
        for queue in &self.control.inbound {
            while let Ok(message) = queue.try_recv() {
                taken = true;
                match message {
                    ToControl::Reconfigured { .. } => self.unconfirmed -= 1,
                    ToControl::Shard { .. } | ToControl::ShardStopped { .. } | ToControl::Trace(_) => {}
                    other => panic!("nobody asked for {other:?}"),
                }
            }
        }
        for outlet in &mut self.control.to_shards {
            outlet.flush();
            outlet.ring();
        }
        taken
    }

    /// The bells of other threads are eventfds that rings watch.
    fn carry_bells(&mut self) {
        for (index, member) in self.shards.iter().enumerate() {
            if member.bell.clear() {
                self.network.ring(index);
            }
        }
    }

    /// Lets all act in turn until nobody has anything to do; then `is_over` must hold.
    fn settle(&mut self, what: &str, is_over: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            let mut is_busy = false;
            while self.network.carry() {
                is_busy = true;
            }
            for index in 0..self.clients.len() {
                let (random, ledger) = (&mut self.random, &mut self.ledger);
                let mut world = World { network: &self.network, ledger, random, is_calm: true };
                is_busy |= self.clients[index].step(&mut world);
            }
            is_busy |= self.producers.take_answers(u64::MAX, &mut self.ledger);
            is_busy |= self.take_reports();
            self.carry_bells();
            for shard in 0..self.shards.len() {
                if self.shards[shard].shard.is_some() && !self.is_asleep(shard) {
                    is_busy = true;
                    self.turn(shard);
                }
            }
            self.carry_bells();
            if is_busy {
                continue;
            }
            for (index, member) in self.shards.iter().enumerate() {
                assert!(
                    member.shard.is_none() || member.inbound.iter().all(|queue| queue.is_empty()),
                    "a message waits beside shard {index}, which sleeps"
                );
            }
            if is_over(self) {
                return;
            }
            // Whoever waits for a moment: a shard for room in a queue, a late event, a deadline.
            self.network.pass(1);
        }
        panic!("waited in vain for {what}");
    }

    fn figures(&self) -> impl Iterator<Item = mesh::ShardFigures> {
        self.shards.iter().filter_map(|member| member.shard.as_ref()).map(Shard::figures)
    }

    fn channels(&self) -> impl Iterator<Item = String> + use<> {
        let personal: Vec<String> = self.users.iter().map(|user| format!("#{user}")).collect();
        CHANNELS.into_iter().map(str::to_owned).chain(personal)
    }
}

fn faults(random: &mut Random) -> Faults {
    let mut often = |times_max: u64| if random.chance(1, 3) { 0 } else { random.below(times_max) };
    Faults {
        event_delays: often(600),
        short_sends: often(400),
        memory_shortages: often(100),
        interrupts: often(50),
        descriptor_shortages: often(200),
        accept_ends: often(200),
        unparks: often(100),
        descriptors_max: if often(3) == 2 { 4 } else { usize::MAX },
    }
}

fn config(random: &mut Random) -> Config {
    let mut config = Config::default();
    config.client.allow_anonymous = true;
    config.client.token.hmac_secret = Some(SECRET.into());
    config.client.connections_max = CONNECTIONS_MAX;
    config.client.user_connections_max = random.below(4) as u32;
    config.client.request_head_ms_max = 2_000;
    config.client.connect_ms_max = 2_000;
    config.client.ping_ms = 4_000;
    config.client.pong_ms_max = 1_500;
    config.client.pong_grace_ms = 1_000;
    config.tracing.endpoint = Some("http://127.0.0.1/v1/traces".to_owned());
    config.tracing.sample_one_in = 2;
    // More than there are: what is chosen depends on no clock.
    config.tracing.traces_per_second_max = 1_000_000;
    // Longer than any run: a key that is used again is always known.
    config.ingest.idempotency_ms = u32::MAX;
    let outbox_bytes_max = random.one_of(&[2_000, 30_000]);
    config.shards.outbox_bytes_max = 1_000 + random.below(outbox_bytes_max) as u32;
    config.shards.outboxes_bytes_max = if random.chance(1, 4) { 20_000 } else { 1 << 30 };
    let history_compression_bytes_min = random.one_of(&[0_u32, 1, 300]);
    let namespace = |name: &str, history_size, slow_consumer| {
        Arc::new(Namespace {
            name: name.to_owned(),
            allow_subscribe_for_client: true,
            allow_subscribe_for_anonymous: true,
            allow_publish_for_client: true,
            allow_publish_for_anonymous: true,
            allow_history_for_client: true,
            allow_history_for_anonymous: true,
            history_size,
            history_ttl_ms: if history_size > 0 { HISTORY_TTL_MS } else { 0 },
            history_compression_bytes_min,
            force_recovery: history_size > 0,
            slow_consumer,
            allow_tags_filter: true,
            allowed_delta_types: vec![DeltaType::Fossil],
            delta_publish: true,
            ..Namespace::default()
        })
    };
    config.namespaces.without = Some(namespace("", 0, SlowConsumerPolicy::Disconnect));
    let cache = Namespace {
        force_recovery_mode: RecoveryMode::Cache,
        ..Namespace::clone(&namespace("cache", HISTORY_SIZE, SlowConsumerPolicy::Disconnect))
    };
    let room = Namespace {
        presence: true,
        allow_presence_for_client: true,
        allow_presence_for_anonymous: true,
        join_leave: true,
        force_push_join_leave: true,
        ..Namespace::clone(&namespace("room", HISTORY_SIZE, SlowConsumerPolicy::Disconnect))
    };
    config.namespaces.by_name = vec![
        Arc::new(cache),
        namespace("kept", HISTORY_SIZE, SlowConsumerPolicy::Disconnect),
        namespace("latest", 0, SlowConsumerPolicy::Latest),
        namespace("oldest", 0, SlowConsumerPolicy::DropOldest),
        namespace("plain", 0, SlowConsumerPolicy::Disconnect),
        Arc::new(room),
        namespace("sync", HISTORY_SIZE, SlowConsumerPolicy::Resync),
    ];
    config
}

/// What a reload may change without breaking what the ledger holds shards to: limits, how long history is at least, what
/// happens to slow clients where any of it keeps the promise, and whether home shards know the subscribers.
fn other_rules(config: &Config, random: &mut Random) -> Config {
    let mut config = config.clone();
    config.client.user_connections_max = random.below(4) as u32;
    config.client.expired_grace_ms = random.below(60_000) as u32;
    config.client.pong_ms_max = 1_000 + random.below(1_000) as u32;
    let outbox_bytes_max = random.one_of(&[2_000, 30_000]);
    config.shards.outbox_bytes_max = 1_000 + random.below(outbox_bytes_max) as u32;
    config.shards.outboxes_bytes_max = if random.chance(1, 4) { 20_000 } else { 1 << 30 };
    for namespace in &mut config.namespaces.by_name {
        let namespace = Arc::make_mut(namespace);
        match namespace.name.as_str() {
            "plain" => namespace.presence = random.chance(1, 2),
            "kept" => namespace.history_size = HISTORY_SIZE + random.below(5) as u32,
            "latest" => {
                namespace.presence = random.chance(1, 2);
                namespace.slow_consumer = random.one_of(&[SlowConsumerPolicy::Latest, SlowConsumerPolicy::Disconnect]);
            }
            "oldest" => {
                namespace.presence = random.chance(1, 2);
                namespace.slow_consumer = random.one_of(&[
                    SlowConsumerPolicy::DropOldest,
                    SlowConsumerPolicy::Latest,
                    SlowConsumerPolicy::Disconnect,
                ]);
            }
            _ => {}
        }
    }
    config
}
