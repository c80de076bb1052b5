//! What is said to who asks how the program is used.

pub(crate) const AGENT: &str = "\
Usage: policy-agent --config-file PATH
       policy-agent doctor [--json] --config-file PATH
       policy-agent explain [--json] [--address HOST:PORT] [--from NAMESPACE] SOURCE DESTINATION PORT[/tcp|/udp]
       policy-agent promote [--address HOST:PORT] [default_deny|removals|security_groups]

Makes this cell's kernel enforce the network policies of the policy server, and tells the server so.
Rules stay in place when the agent stops, and when the server is away. It exits with 75 if another agent
is at work here, and names it.

  doctor   says what on this cell keeps policies from being enforced, or soon will
  explain  says what becomes of a packet between two apps or addresses, and why
  promote  has the agent deny what its configuration has it only watch (shadow mode)

Each of these tells more with --help.

The file is JSON with at least
  policy_server_url                                   https://host:4003; policy_server_urls if several
  ca_cert_file, client_cert_file, client_key_file     PEM, from the server's pki folder
  cni_datastore_path                                  the container store
  subnet_file                                         flannel's subnet.env, which `overlay` writes; or
                                                      overlay_network, if the VXLAN device says the rest
policy-agent/README.md lists all keys and their defaults. A key it does not know is told in the log, with
the one that may have been meant.

networker_repair in that file, a list of a program and its arguments, has it start the networker when
something is missing of what that wrote for containers.";

pub(crate) const DOCTOR: &str = "\
Usage: policy-agent doctor [--json] --config-file PATH

Says what on this cell keeps policies from being enforced, or soon will: features of the kernel, the VXLAN
device, locks, certificates, the policy server, the agent and its configuration. It changes nothing, and
works whether or not the agent runs.

Exit code: 0 nothing is wrong, 1 something is broken, 3 there are only warnings, 2 the command line is wrong.

  --json             for programs: {\"verdict\": \"warning\", \"findings\": [{\"name\", \"verdict\", \"says\"}, …]}
  --config-file PATH the file the agent is started with

Example: policy-agent doctor --config-file /etc/netman/policy-agent.json";

pub(crate) const EXPLAIN: &str = "\
Usage: policy-agent explain [--json] [--address HOST:PORT] [--from NAMESPACE] SOURCE DESTINATION PORT[/tcp|/udp]

Asks the agent of this cell what becomes of a packet between two apps or addresses, why, which policy allows
it or is missing, and whether the kernel holds the rules.

  --address HOST:PORT  where the agent listens, if not on 127.0.0.1:8722
  --from NAMESPACE     also tries it, by one connection or one empty datagram out of the network namespace of
                       the source's container: /proc/PID/ns/net, or a file in the networker's bind_mount_dir
  --json               for programs

Exit code: 0 it is explained, whether it passes or not; 1 the agent does not answer, or cannot tell;
2 the command line is wrong; 4 with --from, what passes was denied or not answered, or what is refused was.

Examples: policy-agent explain web db 8080
          policy-agent explain --from /proc/4711/ns/net 10.255.30.2 10.255.31.2 53/udp";

pub(crate) const PROMOTE: &str = "\
Usage: policy-agent promote [--address HOST:PORT] [default_deny|removals|security_groups]

Has the agent of this cell deny from now on what its configuration (`shadow`) has it only watch: all of it, or
what is named. Of removals that is what was removed so far; later ones are watched again.

  --address HOST:PORT  where the agent listens, if not on 127.0.0.1:8722

It says what is denied from now on, and what is only watched all the same.

Exit code: 0 what was named is denied, 1 it is not, or not yet, 2 the command line is wrong.

Example: policy-agent promote removals";
