"""TLS contexts as gRPC wants them: version 1.2 or later, ALPN h2, a certificate that fits the host.

LND makes itself a self-signed ECDSA certificate, which is then the only root that counts; without one the system's
roots do. The address dialled may be an IP: Python checks it against the certificate's IP entries.
"""

import ssl
from pathlib import Path


def client_context(root_pem: str | None = None) -> ssl.SSLContext:
    """A context to call a server with.

    Args:
      root_pem: the only certificate to trust, such as the content of LND's tls.cert; None for the system's roots.

    Raises:
      ssl.SSLError: the text is no certificate.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=root_pem)
    return require_http2(context)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context to be called with.

    Args:
      certificate: PEM file with the certificate chain.
      key: PEM file with its private key, unencrypted.

    Raises:
      OSError: a file cannot be read.
      ssl.SSLError: they do not belong together, or are no PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return require_http2(context)


def require_http2(context: ssl.SSLContext) -> ssl.SSLContext:
    """Set on `context` what RFC 9113, 9.2 requires; returns it."""
    if context.minimum_version < ssl.TLSVersion.TLSv1_2:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["h2"])
    return context
