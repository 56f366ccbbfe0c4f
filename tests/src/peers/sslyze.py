"""Scans a TLS server and holds what it finds against Mozilla's intermediate profile. Arguments: host name, address, port,
`smtp` for STARTTLS or `tls`, a PEM file of the CA. Prints JSON: by name, what is wrong."""
import json, sys
from pathlib import Path

from sslyze import (
    CertificateInfoExtraArgument, ScanCommandsExtraArguments,
    ProtocolWithOpportunisticTlsEnum, Scanner, ServerNetworkConfiguration, ServerNetworkLocation, ServerScanRequest,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    SCAN_COMMANDS_NEEDED_BY_MOZILLA_CHECKER, MozillaTlsConfiguration, ServerNotCompliantWithTlsConfiguration,
    TlsConfigurationEnum, check_server_against_tls_configuration,
)

name, address, port, kind, ca = sys.argv[1:]
network = ServerNetworkConfiguration(
    tls_server_name_indication=name,
    tls_opportunistic_encryption=ProtocolWithOpportunisticTlsEnum.SMTP if kind == "smtp" else None,
    network_timeout=30,
)
scanner = Scanner(per_server_concurrent_connections_limit=2)
scanner.queue_scans([
    ServerScanRequest(
        server_location=ServerNetworkLocation(hostname=name, port=int(port), ip_address=address),
        network_configuration=network,
        scan_commands=SCAN_COMMANDS_NEEDED_BY_MOZILLA_CHECKER,
        scan_commands_extra_arguments=ScanCommandsExtraArguments(
            certificate_info=CertificateInfoExtraArgument(custom_ca_file=Path(ca))
        ),
    )
])
for result in scanner.get_results():
    wrong = {}
    for command in SCAN_COMMANDS_NEEDED_BY_MOZILLA_CHECKER:
        attempt = getattr(result.scan_result, command.value, None)
        if attempt is None or attempt.result is None:
            trace = getattr(attempt, "error_trace", None)
            why = "".join(trace.format()) if trace else result.connectivity_error_trace
            sys.exit(f"{name} {port}: {command.value} could not be scanned: {getattr(attempt, 'error_reason', None)}\n{why}")
    try:
        profile = MozillaTlsConfiguration.get(TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
        check_server_against_tls_configuration(result, profile)
    except ServerNotCompliantWithTlsConfiguration as error:
        wrong = error.issues
    found = result.scan_result
    if found.session_renegotiation.result.is_vulnerable_to_client_renegotiation_dos:
        wrong["renegotiation"] = "a client may renegotiate"
    versions = [
        version
        for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3")
        if getattr(found, version + "_cipher_suites").result.is_tls_version_supported
    ]
    print(json.dumps({"wrong": wrong, "versions": versions}))
