"""Operations on boxes and shapes that hold no parameters: overlap, suppression, voting, sizes."""
