//! A measured program: started on one core, ended with the bench, its CPU time and memory read from `/proc`.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::Outcome;

/// How long a program may take to end after `SIGTERM` before its processes are killed.
const TERMINATE_WITHIN: Duration = Duration::from_secs(3);

/// A running program and its descendants. Dropping it ends them all, also when the bench panics; when the
/// bench itself is killed the kernel ends the program (`PR_SET_PDEATHSIG`).
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` on `core`; what it prints goes to the file `log`.
    ///
    /// # Errors
    /// The program is missing or the log cannot be written.
    pub fn start(command: &mut Command, core: usize, log: &Path) -> Outcome<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file =
            fs::File::create(log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        let same = file.try_clone().map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file).stderr(same);
        pin_on_start(command, core);
        let child = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Process { child, log: log.to_owned() })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the program printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `ready` answers true.
    ///
    /// # Errors
    /// The program ended, or ten seconds passed; the error carries what it printed.
    pub fn wait_until(&mut self, mut ready: impl FnMut(&Process) -> bool) -> Outcome<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ready(self) {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended with {status} before it served; it printed: {}", self.log()));
            }
            if Instant::now() > deadline {
                return Err(format!("it did not serve within 10 s; it printed: {}", self.log()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// User and system time of the program and its descendants since they started, in seconds, in steps of
    /// 10 ms (`utime` and `stime` of proc(5)).
    pub fn cpu_seconds(&self) -> f64 {
        // SAFETY: sysconf reads a constant and has no preconditions.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let sum: u64 = self
            .tree()
            .iter()
            .filter_map(|pid| stat_fields(*pid))
            .map(|fields| number(&fields, 11) + number(&fields, 12))
            .sum();
        sum as f64 / ticks
    }

    /// Bytes that the program and its descendants had the disk read, for themselves or ahead (`read_bytes` of proc(5)).
    pub fn read_bytes(&self) -> u64 {
        let of = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.trim().parse::<u64>().ok())
        };
        self.tree().iter().filter_map(of).sum()
    }

    /// Resident bytes of the program and its descendants. `smaps_rollup` counts pages; `VmRSS` of recent
    /// kernels is an estimate that can be off by 32 pages a core, too much over 10,000 connections.
    pub fn resident_bytes(&self) -> u64 {
        self.tree().iter().map(|pid| resident_kilobytes(*pid) * 1024).sum()
    }

    /// The program and its descendants.
    fn tree(&self) -> Vec<u32> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
                && let Some(fields) = stat_fields(pid)
            {
                parents.push((pid, number(&fields, 1) as u32));
            }
        }
        let mut tree = vec![self.child.id()];
        let mut next = 0;
        while next < tree.len() {
            let of = tree[next];
            tree.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
            next += 1;
        }
        tree
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let tree = self.tree();
        signal(self.child.id(), libc::SIGTERM);
        let deadline = Instant::now() + TERMINATE_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // Descendants first: they still belong to this program as long as it was not waited for.
            tree.iter().rev().for_each(|pid| signal(*pid, libc::SIGKILL));
        }
        // An error means that it was waited for already.
        let _ = self.child.wait();
    }
}

/// Makes `command` run on `core` alone and end when this thread's process does.
pub fn pin_on_start(command: &mut Command, core: usize) {
    let set = core_set(core);
    let prepare = move || {
        // SAFETY: the set is initialised and outlives the call; 0 is the calling process.
        let pinned = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
        if pinned != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory of ours.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
        Ok(())
    };
    // SAFETY: the closure makes two system calls and neither allocates nor locks, so it may run after fork.
    unsafe { command.pre_exec(prepare) };
}

/// Moves this process, which must have one thread, to a network of its own. Its loopback has the segments of Ethernet: with
/// the usual ones of 64 KB the kernel gives each connection a send buffer of more than a megabyte, and a few thousand
/// slow readers use up what all sockets of the machine may have together (`tcp_mem` of tcp(7)).
///
/// # Errors
/// This needs root, and the program `ip`.
pub fn enter_own_network() -> Outcome<()> {
    // SAFETY: unshare takes an integer only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(format!("no network of its own: {}", io::Error::last_os_error()));
    }
    let configured = Command::new("ip").args(["link", "set", "lo", "mtu", "1500", "up"]).status();
    match configured {
        Ok(status) if status.success() => Ok(()),
        _ => Err("cannot set up the loopback: install it with `apt-get install iproute2`".to_owned()),
    }
}

/// Bytes that TCP holds in the kernel, on the whole machine (`mem` of /proc/net/sockstat, in pages).
pub fn kernel_tcp_bytes() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let pages = line.split_whitespace().skip_while(|word| *word != "mem").nth(1);
    pages.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Moves the calling thread to `core`; without effect where the machine has no such core.
pub fn pin_thread(core: usize) {
    let set = core_set(core);
    // SAFETY: the set is initialised and outlives the call; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
}

/// Raises the soft limit of descriptors to the hard one: 10,000 connections need more than the usual 1,024.
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0 {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is initialised and outlives the call.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

fn core_set(core: usize) -> libc::cpu_set_t {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET checks the index against the size of the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    set
}

/// Sends a signal to a process that was seen a moment ago: a child, or a descendant.
pub fn signal(pid: u32, number: i32) {
    // SAFETY: kill touches no memory.
    unsafe { libc::kill(pid as libc::pid_t, number) };
}

/// The fields of `/proc/PID/stat` after the name, which may hold spaces and parentheses; the first is the
/// state, field 3 of proc(5).
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

fn number(fields: &[String], index: usize) -> u64 {
    fields.get(index).and_then(|field| field.trim().parse().ok()).unwrap_or(0)
}

fn resident_kilobytes(pid: u32) -> u64 {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    line("smaps_rollup", "Rss:").or_else(|| line("status", "VmRSS:")).unwrap_or(0)
}
