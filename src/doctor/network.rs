//! What TCP and the firewall hold, and what they lose when everything comes at once.

use super::{
    cost::SENDING_PAGES,
    demand::Demand,
    finding::{Finding, Remedy, State},
    host::Host,
    quantity::{bytes, count},
    recommendation::{
        CONNTRACK_MAX, NETDEV_MAX_BACKLOG, PORT_RANGE, SOMAXCONN, Setting, TCP_MAX_SYN_BACKLOG, TCP_MEM,
        TCP_SLOW_START_AFTER_IDLE, TCP_WMEM,
    },
};

pub(super) fn findings(host: &Host, demand: &Demand) -> Vec<Finding> {
    let at_least = |setting, unit| number_at_least(host, demand, setting, unit);
    vec![
        queue_pages(host, demand),
        tracked_connections(host, demand),
        at_least(&SOMAXCONN, "connections wait for accept"),
        at_least(&TCP_MAX_SYN_BACKLOG, "handshakes wait"),
        at_least(&NETDEV_MAX_BACKLOG, "packets wait for a core"),
        send_buffer(host, demand),
        receive_buffer(host),
        slow_start(host, demand),
        congestion_control(host),
        ports(host, demand),
    ]
}

fn queue_pages(host: &Host, demand: &Demand) -> Finding {
    let Some([_, _, most]) = host.numbers(&TCP_MEM.path()) else {
        return Finding::unknown(TCP_MEM.key, "cannot be read");
    };
    let used = used_pages(host).unwrap_or(0);
    let found = format!("{} pages, {} taken; 1 for each connection that is sent to", count(most), count(used));
    Finding::ceiling(TCP_MEM.key, found, most.saturating_sub(used) / SENDING_PAGES, demand, || {
        Remedy::Sysctl(&TCP_MEM, TCP_MEM.value(demand.connections))
    })
    .about(&TCP_MEM, host)
}

/// Pages that all sockets' queues take now.
fn used_pages(host: &Host) -> Option<u64> {
    let line = host.line("proc/net/sockstat", "TCP:")?;
    let (_, pages) = line.split_once("mem ")?;
    pages.split_whitespace().next()?.parse().ok()
}

fn tracked_connections(host: &Host, demand: &Demand) -> Finding {
    const NAME: &str = "conntrack";
    let Some(most) = host.number(&CONNTRACK_MAX.path()) else {
        return Finding::fact(NAME, "not loaded".to_owned());
    };
    match host.number("proc/sys/net/netfilter/nf_conntrack_count") {
        // The module alone tracks nothing; a firewall rule has to ask for it.
        Some(0) => Finding::unknown(
            NAME,
            format!("loaded for {} connections, but tracks none now: no rule asks for it so far", count(most)),
        ),
        used => {
            let used = used.unwrap_or(0);
            let found = format!("{} connections, {} taken", count(most), count(used));
            Finding::ceiling(NAME, found, most.saturating_sub(used), demand, || {
                Remedy::Sysctl(&CONNTRACK_MAX, CONNTRACK_MAX.value(demand.connections + used))
            })
            .about(&CONNTRACK_MAX, host)
        }
    }
}

fn number_at_least(host: &Host, demand: &Demand, setting: &'static Setting, unit: &str) -> Finding {
    let Some(number) = host.number(&setting.path()) else {
        return Finding::unknown(setting.key, "cannot be read");
    };
    let wanted = setting.value(demand.connections);
    let is_enough = wanted.parse().is_ok_and(|wanted: u64| number >= wanted);
    let state = if is_enough { State::Ok } else { State::TooLow };
    Finding::setting(setting.key, format!("{} {unit}", count(number)), state, Remedy::Sysctl(setting, wanted))
        .about(setting, host)
}

fn send_buffer(host: &Host, demand: &Demand) -> Finding {
    let Some([_, _, most]) = host.numbers(&TCP_WMEM.path()) else {
        return Finding::unknown(TCP_WMEM.key, "cannot be read");
    };
    let wanted = TCP_WMEM.value(demand.connections);
    let is_fine = wanted.split_whitespace().nth(2).and_then(|most| most.parse().ok()).is_some_and(|m: u64| most <= m);
    let state = if is_fine { State::Ok } else { State::Advice };
    let found = format!("up to {} in the kernel for each slow client", bytes(most));
    Finding::setting(TCP_WMEM.key, found, state, Remedy::Sysctl(&TCP_WMEM, wanted)).about(&TCP_WMEM, host)
}

fn receive_buffer(host: &Host) -> Finding {
    const NAME: &str = "net.ipv4.tcp_rmem";
    match host.numbers("proc/sys/net/ipv4/tcp_rmem") {
        Some([_, _, most]) => {
            Finding::fact(NAME, format!("up to {} unread; the server reads what comes at once", bytes(most)))
        }
        None => Finding::unknown(NAME, "cannot be read"),
    }
}

fn slow_start(host: &Host, demand: &Demand) -> Finding {
    let setting = &TCP_SLOW_START_AFTER_IDLE;
    let Some(found) = host.text(&setting.path()) else {
        return Finding::unknown(setting.key, "cannot be read");
    };
    let wanted = setting.value(demand.connections);
    let state = if found == wanted { State::Ok } else { State::Advice };
    Finding::setting(setting.key, found, state, Remedy::Sysctl(setting, wanted)).about(setting, host)
}

fn congestion_control(host: &Host) -> Finding {
    const NAME: &str = "congestion control";
    match host.text("proc/sys/net/ipv4/tcp_congestion_control") {
        Some(name) => Finding::fact(NAME, name),
        None => Finding::unknown(NAME, "cannot be read"),
    }
}

/// Ports end what this host can open, not what it can accept.
fn ports(host: &Host, demand: &Demand) -> Finding {
    let Some([first, last]) = host.numbers(&PORT_RANGE.path()) else {
        return Finding::unknown(PORT_RANGE.key, "cannot be read");
    };
    let ports = last.saturating_sub(first) + 1;
    let addresses = demand.connections.div_ceil(ports);
    let found = format!(
        "{} ports for what this host opens itself; {} connections to one server need {} source addresses",
        count(ports),
        count(demand.connections),
        count(addresses)
    );
    Finding::fact(PORT_RANGE.key, found)
}
