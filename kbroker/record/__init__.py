"""Record batches of message format v2 (KIP-98): headers, walk, records, compression, CRC."""
