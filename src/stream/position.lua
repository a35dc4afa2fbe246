-- position: where one stream is.
--
-- Called by:  stream::positions, pipelined over all streams, at each audit. Writes nothing.
-- Keys:       1 the stream.
-- Returns:    {kind, last-generated-id}; kind as TYPE says it, "none" with 0-0 for a missing key.
-- Form:       a script, because XINFO STREAM alone would send the first and last entry whole.
return {place(KEYS[1])}
