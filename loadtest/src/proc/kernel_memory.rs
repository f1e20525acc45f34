//! Kernel memory: slab objects by cache, and the totals that the kernel gives.
//!
//! An object counts with its share of its slab's pages (a TCP socket of 2,368 B lives 13 to a
//! 32 KiB slab and costs 2,521 B): free room in partial slabs, which comes and goes, is left out.
//! So are the caches of file systems, which grow with whatever else the machine does; of directory
//! entries and their like, as many count as sockets came, since each socket has one. A connection
//! has a whole number of most objects: what is near one is taken for it, since the kernel counts free
//! objects of slabs that a core holds as used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::user_memory::field;

const PAGE_BYTES: f64 = 4096.0;

/// Kernel memory at one moment.
#[derive(Debug, Clone, Default)]
pub struct KernelMemory {
    /// Objects by cache; none if /proc/slabinfo may not be read.
    by_cache: Option<BTreeMap<String, Cache>>,
    slab_bytes: u64,
    page_table_bytes: u64,
    vmalloc_bytes: u64,
    percpu_bytes: u64,
}

/// Kernel memory that came between two moments, per connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct KernelGrowth {
    /// Bytes per connection in slab objects; from the total in /proc/meminfo where /proc/slabinfo may not be read.
    pub slab_bytes: f64,
    /// Those of them that only the connecting end has: a port's bind buckets. (An accepted socket shares the listener's.)
    pub connecting_end_bytes: f64,
    /// Bytes per connection by /proc/meminfo's total, free room in slabs included.
    pub slab_total_bytes: f64,
    /// Bytes per connection outside slabs: page tables, vmalloc (descriptor tables), per-CPU data.
    pub other_bytes: f64,
    /// Caches that grew, the largest first.
    pub caches: Vec<CacheGrowth>,
}

/// Growth of one cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheGrowth {
    /// Name, as /proc/slabinfo has it.
    pub name: String,
    /// Objects per connection.
    pub objects: f64,
    /// Bytes per connection.
    pub bytes: f64,
}

impl KernelGrowth {
    /// Bytes per connection in slab objects beyond another server's, whose clients are the same. Objects are compared
    /// cache by cache: what else runs on the machine takes and frees objects too, but not one for each connection.
    pub fn slab_bytes_beyond(&self, other: &KernelGrowth) -> f64 {
        if self.caches.is_empty() || other.caches.is_empty() {
            return self.slab_bytes - other.slab_bytes;
        }
        let of = |growth: &KernelGrowth, name: &str| {
            growth.caches.iter().find(|cache| cache.name == name).cloned().unwrap_or_default()
        };
        let names: BTreeSet<&String> = self.caches.iter().chain(&other.caches).map(|cache| &cache.name).collect();
        let beyond = names.into_iter().map(|name| {
            let (ours, theirs) = (of(self, name), of(other, name));
            let (objects, bytes) = (ours.objects - theirs.objects, ours.bytes - theirs.bytes);
            // A difference has the noise of both.
            if objects == 0.0 { 0.0 } else { nearly_whole(objects, 2.0 * WHOLE_TOLERANCE) * bytes / objects }
        });
        beyond.sum()
    }
}

impl KernelMemory {
    /// The present kernel memory.
    ///
    /// # Errors
    /// If /proc/meminfo cannot be read.
    pub fn now() -> Result<KernelMemory> {
        let meminfo = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let by_cache = fs::read_to_string("/proc/slabinfo").ok().map(|text| parse_slabinfo(&text));
        let bytes = |name| field(&meminfo, name).unwrap_or_default();
        Ok(KernelMemory {
            by_cache,
            slab_bytes: bytes("Slab:"),
            page_table_bytes: bytes("PageTables:"),
            vmalloc_bytes: bytes("VmallocUsed:"),
            percpu_bytes: bytes("Percpu:"),
        })
    }

    /// What came since `earlier`, spread over this many connections.
    pub fn growth_per_connection(&self, earlier: &KernelMemory, connections: u64) -> KernelGrowth {
        let per = |now: u64, before: u64| (now as f64 - before as f64) / connections as f64;
        let caches = self.cache_growth(earlier, connections);
        let slab_total_bytes = per(self.slab_bytes, earlier.slab_bytes);
        let slab_bytes = match &self.by_cache {
            Some(_) => caches.iter().map(|cache| cache.bytes).sum(),
            None => slab_total_bytes,
        };
        let ports = self.by_cache.as_ref().and_then(|caches| cache_of(PORTS, caches.keys()));
        let of_ports = caches.iter().filter(|cache| Some(&cache.name) == ports.as_ref());
        KernelGrowth {
            slab_bytes,
            connecting_end_bytes: of_ports.map(|cache| cache.bytes).sum(),
            slab_total_bytes,
            other_bytes: per(self.page_table_bytes, earlier.page_table_bytes)
                + per(self.vmalloc_bytes, earlier.vmalloc_bytes)
                + per(self.percpu_bytes, earlier.percpu_bytes),
            caches,
        }
    }

    fn cache_growth(&self, earlier: &KernelMemory, connections: u64) -> Vec<CacheGrowth> {
        let (Some(now), Some(before)) = (&self.by_cache, &earlier.by_cache) else { return Vec::new() };
        let mut caches: Vec<CacheGrowth> = now
            .iter()
            .filter(|(name, _)| !is_of_file_systems(name))
            .map(|(name, cache)| {
                let objects =
                    |caches: &BTreeMap<String, Cache>, name: &str| caches.get(name).map_or(0.0, |cache| cache.objects);
                let counted = if ONE_PER_SOCKET.contains(&name.as_str()) { SOCKETS } else { name };
                let grown = (objects(now, counted) - objects(before, counted)) / connections as f64;
                let objects = nearly_whole(grown, WHOLE_TOLERANCE);
                CacheGrowth { name: name.clone(), objects, bytes: objects * cache.object_bytes }
            })
            // Less than that per connection has nothing to do with connections.
            .filter(|cache| cache.bytes.abs() >= CACHE_BYTES_MIN)
            .collect();
        caches.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
        caches
    }
}

/// Growth per connection from which a cache is shown and counted, in bytes.
const CACHE_BYTES_MIN: f64 = 4.0;

/// A cache for the buckets of bound ports.
const PORTS: &str = "tcp_bind_bucket";

/// The name under which /proc/slabinfo shows a cache: the kernel merges caches of like objects, and
/// shows one name for all that share their slabs.
fn cache_of<'a>(name: &str, mut shown: impl Iterator<Item = &'a String>) -> Option<String> {
    let slabs = |name: &str| fs::read_link(format!("/sys/kernel/slab/{name}")).ok();
    let wanted = slabs(name);
    let is_same = |shown: &str| wanted.is_some() && slabs(shown) == wanted;
    shown.find(|shown| *shown == name || is_same(shown)).cloned()
}

const SOCKETS: &str = "sock_inode_cache";

/// Caches that file systems fill too, of which each socket has one object.
const ONE_PER_SOCKET: [&str; 2] = ["dentry", "lsm_inode_cache"];

/// How far from a whole number of objects per connection a count may be to be taken for it.
const WHOLE_TOLERANCE: f64 = 0.1;

fn nearly_whole(objects: f64, tolerance: f64) -> f64 {
    if (objects - objects.round()).abs() <= tolerance { objects.round() } else { objects }
}

fn is_of_file_systems(name: &str) -> bool {
    let is_inode_cache = name.contains("inode") && name != SOCKETS && !ONE_PER_SOCKET.contains(&name);
    is_inode_cache
        || ["buffer_head", "radix_tree_node", "xfs_", "ext4_", "btrfs_"].iter().any(|part| name.starts_with(part))
}

/// Objects in use of one kind.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cache {
    objects: f64,
    /// With its share of the slab's pages.
    object_bytes: f64,
}

fn parse_slabinfo(text: &str) -> BTreeMap<String, Cache> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(parse_cache).collect()
}

/// `name active_objs num_objs objsize objperslab pagesperslab : tunables ...`
fn parse_cache(line: &str) -> Option<(String, Cache)> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?;
    let numbers: Vec<f64> = words.take(5).map_while(|word| word.parse().ok()).collect();
    let [active, _, _, objects_per_slab, pages_per_slab] = numbers[..] else { return None };
    Some((name.to_owned(), Cache { objects: active, object_bytes: pages_per_slab * PAGE_BYTES / objects_per_slab }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLABINFO: &str = "slabinfo - version: 2.1\n\
        # name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables\n\
        TCP   52 65 2368 13 8 : tunables 0 0 0 : slabdata 4 4 0\n\
        filp 918 1155 192 21 1 : tunables 0 0 0 : slabdata 55 55 0\n\
        sock_inode_cache 40 40 832 4 1 : tunables 0 0 0 : slabdata 10 10 0\n\
        dentry 5000 5000 192 16 1 : tunables 0 0 0 : slabdata 5 5 0\n\
        ext4_inode_cache 77 77 1024 4 1 : tunables 0 0 0 : slabdata 5 5 0\n";

    #[test]
    fn objects_cost_their_share_of_pages() {
        let caches = parse_slabinfo(SLABINFO);
        assert_eq!(caches.len(), 5);
        assert_eq!(caches["TCP"], Cache { objects: 52.0, object_bytes: 32_768.0 / 13.0 });
    }

    #[test]
    fn growth_is_by_cache_and_per_connection() {
        let before = KernelMemory { by_cache: Some(parse_slabinfo(SLABINFO)), ..KernelMemory::default() };
        let later = SLABINFO.replace("52 65", "182 195").replace("40 40", "60 60");
        let later = later.replace("5000 5000", "9000 9000").replace("77 77", "500 500");
        let after =
            KernelMemory { by_cache: Some(parse_slabinfo(&later)), slab_bytes: 400_000, ..KernelMemory::default() };
        let growth = after.growth_per_connection(&before, 10);
        let expected = [("TCP", 13.0, 32_768.0), ("sock_inode_cache", 2.0, 2048.0), ("dentry", 2.0, 512.0)];
        let expected = expected.map(|(name, objects, bytes)| CacheGrowth { name: name.to_owned(), objects, bytes });
        assert_eq!(growth.caches, expected);
        assert_eq!(growth.slab_bytes, 32_768.0 + 2048.0 + 512.0);
        assert_eq!(growth.slab_total_bytes, 40_000.0);
    }

    #[test]
    fn objects_per_connection_are_whole_where_they_nearly_are() {
        for (counted, taken) in [(1.95, 2.0), (2.08, 2.0), (0.04, 0.0), (-0.05, 0.0), (1.25, 1.25), (0.47, 0.47)] {
            assert_eq!(nearly_whole(counted, WHOLE_TOLERANCE), taken);
        }
    }

    #[test]
    fn what_is_beyond_another_servers_is_whole_objects() {
        let growth = |caches: &[(&str, f64, f64)]| KernelGrowth {
            slab_bytes: caches.iter().map(|(_, objects, bytes)| objects * bytes).sum(),
            caches: caches
                .iter()
                .map(|&(name, objects, bytes)| CacheGrowth { name: name.to_owned(), objects, bytes: objects * bytes })
                .collect(),
            ..KernelGrowth::default()
        };
        let floor = growth(&[("TCP", 2.0, 2520.0), ("kmalloc-192", 0.3, 192.0)]);
        let server = growth(&[("TCP", 2.0, 2520.0), ("kmalloc-192", 0.45, 192.0), ("io_kiocb", 1.0, 256.0)]);
        assert_eq!(server.slab_bytes_beyond(&floor), 256.0, "0.15 of an object is somebody else's");
        let grown = growth(&[("TCP", 2.0, 2520.0), ("kmalloc-192", 1.4, 192.0), ("io_kiocb", 1.0, 256.0)]);
        assert_eq!(grown.slab_bytes_beyond(&floor), 448.0);
        let unknown = KernelGrowth { slab_bytes: 5_000.0, ..KernelGrowth::default() };
        assert_eq!(unknown.slab_bytes_beyond(&KernelGrowth { slab_bytes: 4_000.0, ..unknown.clone() }), 1_000.0);
    }

    #[test]
    fn without_slabinfo_the_total_serves() {
        let before = KernelMemory::default();
        let after = KernelMemory { slab_bytes: 1000, ..KernelMemory::default() };
        assert_eq!(after.growth_per_connection(&before, 10).slab_bytes, 100.0);
    }
}
