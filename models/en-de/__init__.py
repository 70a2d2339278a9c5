"""The folder of this package is a pack of mobilenmt. Its licence, in LICENSE, is not that of mobilenmt."""
